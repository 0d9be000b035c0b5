"""Every table as it first stood; a frozen copy, deliberately independent of the models."""

from peewee import *


def up(migrator, db):
    class Organization(Model):
        id = CharField(primary_key=True, max_length=24)
        name = CharField(max_length=200)
        default_region = CharField(null=True, max_length=2)
        event_sequence = BigIntegerField(default=0)
        created_at = CharField(max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "organization"

    db.create_tables([Organization])

    class User(Model):
        id = CharField(primary_key=True, max_length=24)
        organization = ForeignKeyField(Organization, on_delete="RESTRICT")
        email = CharField(unique=True, max_length=320)
        full_name = CharField(max_length=200)
        password_hash = CharField(max_length=200)
        role = CharField(max_length=16)
        token_version = IntegerField(default=0)
        created_at = CharField(max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "user"

    db.create_tables([User])

    class ApiKey(Model):
        id = CharField(primary_key=True, max_length=24)
        organization = ForeignKeyField(Organization, on_delete="RESTRICT")
        user = ForeignKeyField(User, unique=True, on_delete="RESTRICT")
        digest = CharField(unique=True, max_length=64)
        sealed = TextField()
        created_at = CharField(max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "api_key"

    db.create_tables([ApiKey])

    class Contact(Model):
        id = CharField(primary_key=True, max_length=24)
        organization = ForeignKeyField(Organization, on_delete="RESTRICT", index=False)
        phone_number = CharField(max_length=16)
        name = TextField()
        name_is_placeholder = BooleanField(default=False)
        created_at = CharField(max_length=24)
        updated_at = CharField(max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "contact"
            indexes = ((("organization", "phone_number"), True),)

    db.create_tables([Contact])

    class Conversation(Model):
        id = CharField(primary_key=True, max_length=24)
        organization = ForeignKeyField(Organization, on_delete="RESTRICT")
        contact = ForeignKeyField(Contact, on_delete="RESTRICT", index=False)
        channel_type = CharField(max_length=16)
        channel_identifier = CharField(max_length=16)
        last_message_at = CharField(null=True, max_length=24)
        created_at = CharField(max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "conversation"
            indexes = ((("contact", "channel_type", "channel_identifier"), True),)

    db.create_tables([Conversation])

    class Call(Model):
        id = CharField(primary_key=True, max_length=24)
        organization = ForeignKeyField(Organization, on_delete="RESTRICT", index=False)
        contact = ForeignKeyField(Contact, on_delete="RESTRICT", index=False)
        conversation = ForeignKeyField(Conversation, on_delete="RESTRICT")
        external_call_id = TextField(null=True)
        elevenlabs_conversation_id = CharField(null=True, max_length=200)
        source = CharField(max_length=16)
        direction = CharField(max_length=8)
        from_number = CharField(max_length=16)
        to_number = CharField(max_length=16)
        status = CharField(max_length=16)
        duration = DoubleField()
        started_at = CharField(max_length=24)
        ended_at = CharField(max_length=24)
        summary = TextField(null=True)
        transcript = TextField(null=True)
        agent_name = TextField(null=True)
        caller_name = TextField(null=True)
        provider_metadata = TextField(default="{}")
        payload_digests = TextField(default="{}")
        created_at = CharField(max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "call"
            indexes = (
                (("organization", "external_call_id"), True),
                (("organization", "elevenlabs_conversation_id"), False),
                (("organization", "started_at"), False),
                (("contact", "started_at"), False),
            )

    db.create_tables([Call])

    class ContactNote(Model):
        id = CharField(primary_key=True, max_length=24)
        organization = ForeignKeyField(Organization, on_delete="RESTRICT")
        contact = ForeignKeyField(Contact, on_delete="RESTRICT", index=False)
        user = ForeignKeyField(User, null=True, on_delete="RESTRICT")
        type = CharField(max_length=16)
        note = TextField()
        source_tool = CharField(null=True, max_length=32)
        elevenlabs_conversation_id = TextField(null=True)
        created_at = CharField(max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "contact_note"
            indexes = ((("contact", "created_at"), False),)

    db.create_tables([ContactNote])

    class Event(Model):
        organization = ForeignKeyField(Organization, on_delete="RESTRICT", index=False)
        sequence = BigIntegerField()
        name = CharField(max_length=32)
        at = CharField(max_length=24)
        contact_id = CharField(null=True, max_length=24)
        conversation_id = CharField(null=True, max_length=24)
        data = TextField()

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "event"
            indexes = ((("organization", "sequence"), True),)

    db.create_tables([Event])

    class Message(Model):
        id = CharField(primary_key=True, max_length=24)
        organization = ForeignKeyField(Organization, on_delete="RESTRICT", index=False)
        conversation = ForeignKeyField(Conversation, on_delete="RESTRICT", index=False)
        contact = ForeignKeyField(Contact, on_delete="RESTRICT")
        direction = CharField(max_length=8)
        author = CharField(max_length=16)
        text = TextField()
        from_number = CharField(max_length=16)
        to_number = CharField(max_length=16)
        status = CharField(max_length=16)
        skip_automation = BooleanField(default=False)
        provider = CharField(max_length=16)
        provider_message_id = CharField(null=True, max_length=200)
        error = TextField(null=True)
        source_tool = CharField(null=True, max_length=32)
        elevenlabs_conversation_id = TextField(null=True)
        created_at = CharField(max_length=24)
        updated_at = CharField(max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "message"
            indexes = (
                (("conversation", "created_at"), False),
                (("organization", "provider_message_id"), False),
                (("status", "created_at"), False),
            )

    db.create_tables([Message])

    class PhoneNumber(Model):
        id = CharField(primary_key=True, max_length=24)
        organization = ForeignKeyField(Organization, on_delete="RESTRICT", index=False)
        number = CharField(max_length=16)
        label = CharField(null=True, max_length=100)
        is_default = BooleanField(default=False)
        created_at = CharField(max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "phone_number"
            indexes = ((("organization", "number"), True),)

    db.create_tables([PhoneNumber])

    class Recording(Model):
        id = CharField(primary_key=True, max_length=24)
        organization = ForeignKeyField(Organization, on_delete="RESTRICT")
        call = ForeignKeyField(Call, unique=True, on_delete="RESTRICT")
        key = CharField(unique=True, max_length=300)
        content_type = CharField(max_length=100)
        size = BigIntegerField()
        sha256 = CharField(max_length=64)
        created_at = CharField(max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "recording"

    db.create_tables([Recording])

    class SmsConfig(Model):
        organization = ForeignKeyField(Organization, primary_key=True, on_delete="RESTRICT")
        provider = CharField(max_length=16)
        credentials_sealed = TextField()
        updated_at = CharField(max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "sms_config"

    db.create_tables([SmsConfig])

    class ToolInvocation(Model):
        id = CharField(primary_key=True, max_length=24)
        organization = ForeignKeyField(Organization, on_delete="RESTRICT", index=False)
        tool = CharField(max_length=32)
        fingerprint = CharField(max_length=64)
        result_id = CharField(max_length=24)
        invoked_at = CharField(max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "tool_invocation"
            indexes = ((("organization", "fingerprint"), True),)

    db.create_tables([ToolInvocation])

    class TransferRequest(Model):
        id = CharField(primary_key=True, max_length=24)
        organization = ForeignKeyField(Organization, on_delete="RESTRICT", index=False)
        contact = ForeignKeyField(Contact, null=True, on_delete="RESTRICT")
        call = ForeignKeyField(Call, null=True, on_delete="RESTRICT")
        elevenlabs_conversation_id = TextField(null=True)
        called_number = CharField(null=True, max_length=16)
        reason = TextField(null=True)
        requested_at = CharField(max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "transfer_request"
            indexes = ((("organization", "elevenlabs_conversation_id"), False),)

    db.create_tables([TransferRequest])

    class VoiceAiConfig(Model):
        organization = ForeignKeyField(Organization, primary_key=True, on_delete="RESTRICT")
        ai_voice_provider = TextField(null=True)
        elevenlabs_api_key_sealed = TextField(null=True)
        tool_secret_digest = CharField(unique=True, null=True, max_length=64)
        previous_tool_secret_digest = CharField(index=True, null=True, max_length=64)
        previous_tool_secret_expires_at = CharField(null=True, max_length=24)
        sinch_est_key_id = TextField(null=True)
        sinch_est_key_secret_sealed = TextField(null=True)
        sinch_est_project_id = TextField(null=True)
        sinch_est_trunk_id = TextField(null=True)
        sinch_est_trunk_domain = TextField(null=True)
        webhook_status = CharField(max_length=16, default="not_configured")
        webhook_id = CharField(null=True, max_length=200)
        webhook_url = TextField(null=True)
        webhook_secret_sealed = TextField(null=True)
        webhook_error = TextField(null=True)
        webhook_checked_at = CharField(null=True, max_length=24)
        webhook_claimed_until = CharField(null=True, max_length=24)
        updated_at = CharField(max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "voice_ai_config"

    db.create_tables([VoiceAiConfig])


def down(migrator, db):
    migrator.migrate(migrator.drop_table("voice_ai_config"))
    migrator.migrate(migrator.drop_table("transfer_request"))
    migrator.migrate(migrator.drop_table("tool_invocation"))
    migrator.migrate(migrator.drop_table("sms_config"))
    migrator.migrate(migrator.drop_table("recording"))
    migrator.migrate(migrator.drop_table("phone_number"))
    migrator.migrate(migrator.drop_table("message"))
    migrator.migrate(migrator.drop_table("event"))
    migrator.migrate(migrator.drop_table("contact_note"))
    migrator.migrate(migrator.drop_table("call"))
    migrator.migrate(migrator.drop_table("conversation"))
    migrator.migrate(migrator.drop_table("contact"))
    migrator.migrate(migrator.drop_table("api_key"))
    migrator.migrate(migrator.drop_table("user"))
    migrator.migrate(migrator.drop_table("organization"))

"""Business hours, who is available, first and last names, email addresses, and the context of a call for a day."""

from peewee import *

TABLES = ("call_context", "contact_email", "user_availability", "organization_hours")
NAMES = ("first_name", "last_name")


def up(migrator, db):
    create_tables(db)
    migrator.migrate(*[migrator.add_column("contact", name, CharField(max_length=200, null=True)) for name in NAMES])


def down(migrator, db):
    migrator.migrate(*[migrator.drop_column("contact", name) for name in NAMES])
    for table in TABLES:
        migrator.migrate(migrator.drop_table(table))


def create_tables(db):
    class Organization(Model):
        id = CharField(primary_key=True, max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "organization"

    class User(Model):
        id = CharField(primary_key=True, max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "user"

    class Contact(Model):
        id = CharField(primary_key=True, max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "contact"

    class OrganizationHours(Model):
        organization = ForeignKeyField(Organization, on_delete="RESTRICT", primary_key=True)
        timezone = CharField(max_length=64)
        week = TextField(null=True)
        holidays = TextField()
        exceptional = TextField()
        allow_user_override = BooleanField()
        updated_at = CharField(max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "organization_hours"

    class UserAvailability(Model):
        user = ForeignKeyField(User, on_delete="RESTRICT", primary_key=True)
        organization = ForeignKeyField(Organization, on_delete="RESTRICT", index=False)
        is_online = BooleanField()
        is_available = BooleanField()
        online_until = CharField(max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "user_availability"
            indexes = ((("organization", "online_until"), False), (("is_online", "online_until"), False))

    class ContactEmail(Model):
        id = CharField(primary_key=True, max_length=24)
        organization = ForeignKeyField(Organization, on_delete="RESTRICT", index=False)
        contact = ForeignKeyField(Contact, on_delete="RESTRICT", index=False)
        address = CharField(max_length=320)
        is_primary = BooleanField()
        created_at = CharField(max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "contact_email"
            indexes = ((("contact", "address"), True),)

    class CallContext(Model):
        id = CharField(primary_key=True, max_length=24)
        organization = ForeignKeyField(Organization, on_delete="RESTRICT", index=False)
        contact = ForeignKeyField(Contact, on_delete="RESTRICT", null=True)
        elevenlabs_conversation_id = CharField(max_length=512, null=True)
        call_sid = CharField(max_length=200, null=True)
        agent_id = CharField(max_length=200, null=True)
        caller_number = CharField(max_length=16, null=True)
        called_number = CharField(max_length=16, null=True)
        created_at = CharField(max_length=24, index=True)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "call_context"
            indexes = (
                (("organization", "elevenlabs_conversation_id"), True),
                (("organization", "call_sid"), True),
                (("organization", "caller_number"), False),
            )

    db.create_tables([OrganizationHours, UserAvailability, ContactEmail, CallContext])

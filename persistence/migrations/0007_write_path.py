"""Recordings that stay removed, tool secrets that each end on their own, set-ups in order, and one length of ids."""

from peewee import *

MOVED = ("tool_secret_digest", "previous_tool_secret_digest", "previous_tool_secret_expires_at")
BY_TIME = ["organization_id", "called_number", "requested_at"]
WEBHOOK = ("webhook_wanted", "webhook_done")


def up(migrator, db):
    class Organization(Model):
        id = CharField(primary_key=True, max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "organization"

    class ToolSecret(Model):
        id = CharField(primary_key=True, max_length=24)
        organization = ForeignKeyField(Organization, on_delete="RESTRICT")
        digest = CharField(unique=True, max_length=64)
        expires_at = CharField(null=True, max_length=24)
        last_used_at = CharField(null=True, max_length=24)
        created_at = CharField(max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "tool_secret"

    db.create_tables([ToolSecret])
    # Ids ascend with age: the replaced secret gets the lower one. An organization's id is as long and as unique.
    for digest, expires_at, mark in (
        ("previous_tool_secret_digest", "previous_tool_secret_expires_at", "0"),
        ("tool_secret_digest", "NULL", "1"),
    ):
        db.execute_sql(
            f"""INSERT INTO tool_secret (id, organization_id, digest, expires_at, created_at)
            SELECT '{mark}' || substr(organization_id, 2), organization_id, {digest}, {expires_at}, updated_at
            FROM voice_ai_config WHERE {digest} IS NOT NULL"""  # noqa: S608
        )
    for column in MOVED[:2]:
        migrator.migrate(migrator.drop_index("voice_ai_config", index_name(db, "voice_ai_config", [column])))
    migrator.migrate(
        *[migrator.drop_column("voice_ai_config", column) for column in MOVED],
        *[migrator.add_column("voice_ai_config", column, IntegerField(default=0)) for column in WEBHOOK],
        migrator.add_column("voice_ai_config", "webhook_warning", TextField(null=True)),
        migrator.add_column("call", "recording_removed_at", CharField(max_length=24, null=True)),
        migrator.add_index("transfer_request", BY_TIME),
    )
    # A caller who sent the placeholder back as a name kept any later name away.
    db.execute_sql("UPDATE contact SET name_is_placeholder = TRUE WHERE name = 'Unknown Caller'")
    set_conversation_ids(migrator, 512)


def down(migrator, db):
    set_conversation_ids(migrator, 200)
    migrator.migrate(
        migrator.drop_index("transfer_request", index_name(db, "transfer_request", BY_TIME)),
        migrator.drop_column("call", "recording_removed_at"),
        *[migrator.drop_column("voice_ai_config", column) for column in (*WEBHOOK, "webhook_warning")],
        *[migrator.add_column("voice_ai_config", MOVED[2], CharField(max_length=24, null=True))],
        *[migrator.add_column("voice_ai_config", column, CharField(max_length=64, null=True)) for column in MOVED[:2]],
        migrator.add_index("voice_ai_config", [MOVED[0]], unique=True),
        migrator.add_index("voice_ai_config", [MOVED[1]]),
    )
    # There is room for the newest of the replaced ones.
    for column, digest in (
        ("tool_secret_digest", "digest"),
        ("previous_tool_secret_digest", "digest"),
        ("previous_tool_secret_expires_at", "expires_at"),
    ):
        chosen = "IS NULL" if column == "tool_secret_digest" else "IS NOT NULL"
        db.execute_sql(
            f"""UPDATE voice_ai_config SET {column} = (SELECT {digest} FROM tool_secret
            WHERE tool_secret.organization_id = voice_ai_config.organization_id AND expires_at {chosen}
            ORDER BY id DESC LIMIT 1)"""  # noqa: S608
        )
    migrator.migrate(migrator.drop_table("tool_secret"))


def set_conversation_ids(migrator, length):
    migrator.migrate(
        migrator.alter_column_type("call", "elevenlabs_conversation_id", CharField(max_length=length, null=True)),
        migrator.alter_column_type("held_recording", "elevenlabs_conversation_id", CharField(max_length=length)),
    )


def index_name(db, table, columns):
    return next(index.name for index in db.get_indexes(table) if index.columns == columns)

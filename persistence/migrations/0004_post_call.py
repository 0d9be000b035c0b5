"""What the post-call webhook needs: audio that comes before its call, and notes and messages tied to their call."""

from peewee import *

JOINED = ("contact_note", "message")


def up(migrator, db):
    class Organization(Model):
        id = CharField(primary_key=True, max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "organization"

    class Call(Model):
        id = CharField(primary_key=True, max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "call"

    class HeldRecording(Model):
        id = CharField(primary_key=True, max_length=24)
        organization = ForeignKeyField(Organization, on_delete="RESTRICT", index=False)
        elevenlabs_conversation_id = CharField(max_length=200)
        key = CharField(unique=True, max_length=300)
        content_type = CharField(max_length=100)
        size = BigIntegerField()
        sha256 = CharField(max_length=64)
        created_at = CharField(max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "held_recording"
            indexes = ((("organization", "elevenlabs_conversation_id"), True),)

    db.create_tables([HeldRecording])
    call = ForeignKeyField(Call, field=Call.id, null=True, on_delete="RESTRICT")
    for table in JOINED:
        migrator.migrate(
            migrator.add_column(table, "call_id", call),
            migrator.add_index(table, ["organization_id", "elevenlabs_conversation_id"]),
        )
    # What was taken down in calls that are over.
    for table in JOINED:
        db.execute_sql(
            f"""UPDATE {table} SET call_id = (
                SELECT MAX(call.id) FROM call
                WHERE call.organization_id = {table}.organization_id
                AND call.elevenlabs_conversation_id = {table}.elevenlabs_conversation_id)"""  # noqa: S608
        )


def down(migrator, db):
    for table in JOINED:
        for columns in (["organization_id", "elevenlabs_conversation_id"], ["call_id"]):
            migrator.migrate(migrator.drop_index(table, index_name(db, table, columns)))
        migrator.migrate(migrator.drop_column(table, "call_id"))
    migrator.migrate(migrator.drop_table("held_recording"))


def index_name(db, table, columns):
    return next(index.name for index in db.get_indexes(table) if index.columns == columns)

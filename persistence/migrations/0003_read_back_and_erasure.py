"""What reading back, erasing and forgetting in time need: columns, and an index for everything that is read."""

from peewee import *

DROPPED = [
    ("call", ["organization_id", "started_at"]),
    ("call", ["contact_id", "started_at"]),
    ("recording", ["organization_id"]),
    ("contact_note", ["contact_id", "created_at"]),
    ("message", ["conversation_id", "created_at"]),
    ("message", ["contact_id"]),
    ("transfer_request", ["contact_id"]),
]

ADDED = [
    ("contact", ["organization_id", "created_at", "id", "erased_at"]),
    ("call", ["contact_id"]),
    ("call", ["organization_id", "started_at", "id"]),
    ("call", ["organization_id", "contact_id", "started_at", "id"]),
    ("call", ["organization_id", "user_id", "started_at", "id"]),
    ("call", ["organization_id", "status", "started_at", "id", "duration"]),
    ("recording", ["organization_id", "created_at"]),
    ("contact_note", ["contact_id", "created_at", "id"]),
    ("message", ["conversation_id", "created_at", "id"]),
    ("message", ["contact_id", "created_at", "id"]),
    ("transfer_request", ["contact_id", "requested_at", "id"]),
    ("tool_invocation", ["organization_id", "result_id"]),
    ("event", ["organization_id", "contact_id"]),
]

TRANSCRIPTS = "call_organization_id_has_transcript"


def up(migrator, db):
    class User(Model):
        id = CharField(primary_key=True, max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "user"

    user = ForeignKeyField(User, field=User.id, null=True, on_delete="RESTRICT")
    migrator.migrate(
        *[migrator.drop_index(table, index_name(db, table, columns)) for table, columns in DROPPED],
        *[migrator.add_column("organization", f"{what}_retention_days", IntegerField(null=True)) for what in KEPT],
        migrator.add_column("contact", "search", TextField(default="")),
        migrator.add_column("contact", "erased_at", CharField(null=True, max_length=24)),
        migrator.add_column("contact_note", "mentions", TextField(default="[]")),
        migrator.add_column("contact_note", "attachments", TextField(default="[]")),
        migrator.drop_not_null("call", "contact_id"),
        migrator.drop_not_null("call", "conversation_id"),
        migrator.add_column("call", "user_id", user),
        *[migrator.add_index(table, columns) for table, columns in ADDED],
        migrator.add_index(
            "call", ["organization_id", "created_at"], where=SQL('"transcript" IS NOT NULL'), name=TRANSCRIPTS
        ),
    )
    fill_search(db)


def down(migrator, db):
    # Calls whose person was erased have no contact to go back to; they, and only they, stand in the way of NOT NULL.
    migrator.migrate(
        migrator.drop_index("call", TRANSCRIPTS),
        *[migrator.drop_index(table, index_name(db, table, columns)) for table, columns in ADDED],
        migrator.drop_index("call", index_name(db, "call", ["user_id"])),
        migrator.drop_column("call", "user_id"),
        migrator.add_not_null("call", "contact_id"),
        migrator.add_not_null("call", "conversation_id"),
        migrator.drop_column("contact_note", "mentions"),
        migrator.drop_column("contact_note", "attachments"),
        migrator.drop_column("contact", "search"),
        migrator.drop_column("contact", "erased_at"),
        *[migrator.drop_column("organization", f"{what}_retention_days") for what in KEPT],
        *[migrator.add_index(table, columns) for table, columns in DROPPED],
    )


KEPT = ("recording", "transcript", "event")


def index_name(db, table, columns):
    return next(index.name for index in db.get_indexes(table) if index.columns == columns)


def fill_search(db):
    class Contact(Model):
        id = CharField(primary_key=True, max_length=24)
        name = TextField()
        phone_number = CharField(max_length=16)
        search = TextField(default="")

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "contact"

    last = ""
    while page := list(Contact.select().where(Contact.id > last).order_by(Contact.id).limit(500)):
        for contact in page:
            contact.search = f"{contact.name}\n{contact.phone_number}".casefold()
            contact.save(only=[Contact.search])
        last = page[-1].id

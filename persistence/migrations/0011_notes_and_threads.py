"""Notes that are edited and reacted to, and conversations that are resolved."""

from peewee import *

ADDED = {
    "contact_note": {"reactions": TextField(default="[]"), "is_edited": BooleanField(default=False)},
    "conversation": {
        "resolved_at": CharField(max_length=24, null=True),
        "resolved_by": CharField(max_length=24, null=True),
    },
}


def up(migrator, db):
    for table, columns in ADDED.items():
        migrator.migrate(*[migrator.add_column(table, name, field) for name, field in columns.items()])


def down(migrator, db):
    for table, columns in ADDED.items():
        migrator.migrate(*[migrator.drop_column(table, name) for name in columns])

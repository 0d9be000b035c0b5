"""The number to which calls are transferred to a user who is available."""

from peewee import *


def up(migrator, db):
    migrator.migrate(migrator.add_column("user_availability", "transfer_number", CharField(null=True, max_length=16)))


def down(migrator, db):
    migrator.migrate(migrator.drop_column("user_availability", "transfer_number"))

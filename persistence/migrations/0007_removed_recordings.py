"""Whether retention removed a call's recording, so that a second delivery of the audio does not bring it back."""

from peewee import *


def up(migrator, db):
    migrator.migrate(migrator.add_column("call", "recording_removed_at", CharField(max_length=24, null=True)))


def down(migrator, db):
    migrator.migrate(migrator.drop_column("call", "recording_removed_at"))

"""How many sockets each organization has open at each broadcaster."""

from peewee import *


def up(migrator, db):
    class Organization(Model):
        id = CharField(primary_key=True, max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "organization"

    class OpenSockets(Model):
        id = CharField(primary_key=True, max_length=24)
        organization = ForeignKeyField(Organization, on_delete="RESTRICT", index=False)
        broadcaster = CharField(max_length=24, index=True)
        place = CharField(max_length=64)
        count = IntegerField()
        ends_at = CharField(max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "open_sockets"
            indexes = ((("organization", "broadcaster"), True),)

    db.create_tables([OpenSockets])


def down(migrator, db):
    migrator.migrate(migrator.drop_table("open_sockets"))

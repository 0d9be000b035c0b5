"""An identity of each organization's log, and the checkpoints by which broadcasters prove that it goes on."""

from peewee import *

from domain.epochs import new_epoch


def up(migrator, db):
    migrator.migrate(migrator.add_column("organization", "epoch", CharField(max_length=24, default="")))
    for (organization_id,) in db.execute_sql("SELECT id FROM organization").fetchall():
        db.execute_sql(
            f"UPDATE organization SET epoch = {db.param} WHERE id = {db.param}",  # noqa: S608
            (new_epoch(), organization_id),
        )

    class LogCheckpoint(Model):
        id = CharField(primary_key=True, max_length=24)
        mark = CharField(max_length=24)
        place = CharField(max_length=64)
        written_at = CharField(max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "log_checkpoint"

    db.create_tables([LogCheckpoint])


def down(migrator, db):
    migrator.migrate(migrator.drop_table("log_checkpoint"), migrator.drop_column("organization", "epoch"))

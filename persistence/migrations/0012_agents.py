"""Voice agents that were connected: what was made for them at ElevenLabs, and what became of their transfers."""

from peewee import *


def up(migrator, db):
    class Organization(Model):
        id = CharField(primary_key=True, max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "organization"

    class AgentWorkspace(Model):
        organization = ForeignKeyField(Organization, primary_key=True, on_delete="RESTRICT")
        secret_id = CharField(null=True, max_length=200)
        secret_sealed = TextField(null=True)
        secret_digest = CharField(null=True, max_length=64)
        secret_wanted = IntegerField(default=0)
        secret_done = IntegerField(default=0)
        secret_error = TextField(null=True)
        secret_stored_at = CharField(null=True, max_length=24)
        transfer_text = TextField(null=True)
        claimed_until = CharField(null=True, max_length=24)
        claim = CharField(null=True, max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "agent_workspace"

    class AgentTool(Model):
        id = CharField(primary_key=True, max_length=24)
        organization = ForeignKeyField(Organization, on_delete="RESTRICT", index=False)
        name = CharField(max_length=100)
        tool_id = CharField(max_length=200)
        created_at = CharField(max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "agent_tool"
            indexes = ((("organization", "name"), True),)

    class ConnectedAgent(Model):
        id = CharField(primary_key=True, max_length=24)
        organization = ForeignKeyField(Organization, on_delete="RESTRICT", index=False)
        agent_id = CharField(max_length=200)
        name = TextField(default="")
        transfers = TextField(default="[]")
        connected_at = CharField(max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "connected_agent"
            indexes = ((("organization", "agent_id"), True),)

    db.create_tables([AgentWorkspace, AgentTool, ConnectedAgent])
    migrator.migrate(
        migrator.add_column("transfer_request", "outcome", CharField(null=True, max_length=16)),
        migrator.add_column("transfer_request", "outcome_reason", TextField(null=True)),
    )


def down(migrator, db):
    migrator.migrate(
        migrator.drop_column("transfer_request", "outcome_reason"),
        migrator.drop_column("transfer_request", "outcome"),
        *[migrator.drop_table(table) for table in ("connected_agent", "agent_tool", "agent_workspace")],
    )

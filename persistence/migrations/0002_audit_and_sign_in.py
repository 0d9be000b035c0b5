"""The audit log, which the database itself keeps from being changed, and the counters that slow down guessing."""

from peewee import *


def up(migrator, db):
    class Organization(Model):
        id = CharField(primary_key=True, max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "organization"

    class AuditEntry(Model):
        id = CharField(primary_key=True, max_length=24)
        organization = ForeignKeyField(Organization, null=True, on_delete="RESTRICT", index=False)
        at = CharField(max_length=24, index=True)
        action = CharField(max_length=32)
        user_id = CharField(null=True, max_length=24)
        client = CharField(null=True, max_length=64)
        request_id = CharField(null=True, max_length=128)
        subject = CharField(null=True, max_length=64)
        details = TextField(default="{}")

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "audit_entry"
            indexes = ((("organization", "at"), False),)

    class SignInAttempts(Model):
        key = CharField(primary_key=True, max_length=64)
        count = IntegerField(default=0)
        window_ends_at = CharField(max_length=24, index=True)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "sign_in_attempts"

    db.create_tables([AuditEntry, SignInAttempts])
    for statement in SQLITE_GUARD if isinstance(db, SqliteDatabase) else POSTGRESQL_GUARD:
        db.execute_sql(statement)


SQLITE_GUARD = [
    f"""CREATE TRIGGER audit_entry_{change} BEFORE {change} ON audit_entry
        BEGIN SELECT RAISE(ABORT, 'audit entries are final'); END"""
    for change in ("UPDATE", "DELETE")
]

POSTGRESQL_GUARD = [
    """CREATE FUNCTION audit_entry_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'audit entries are final' USING ERRCODE = 'integrity_constraint_violation'; END $$""",
    """CREATE TRIGGER audit_entry_change BEFORE UPDATE OR DELETE ON audit_entry
        FOR EACH ROW EXECUTE FUNCTION audit_entry_is_final()""",
    """CREATE TRIGGER audit_entry_truncate BEFORE TRUNCATE ON audit_entry
        FOR EACH STATEMENT EXECUTE FUNCTION audit_entry_is_final()""",
]


def down(migrator, db):
    migrator.migrate(migrator.drop_table("sign_in_attempts"))
    migrator.migrate(migrator.drop_table("audit_entry"))
    if not isinstance(db, SqliteDatabase):
        db.execute_sql("DROP FUNCTION audit_entry_is_final()")

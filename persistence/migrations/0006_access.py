"""Who gets in and what they did: users that are disabled or removed, several API keys, quotas, a chained audit log."""

from peewee import *

from domain.audit import entry_digest

BATCH = 1000

# Columns in the order they are added.
ADDED = {
    "organization": {
        "recording_bytes": BigIntegerField(default=0),
        "audit_count": BigIntegerField(default=0),
        "audit_digest": CharField(max_length=64, default=""),
        "recording_bytes_limit": BigIntegerField(null=True),
        "requests_per_minute_limit": IntegerField(null=True),
        "sockets_limit": IntegerField(null=True),
    },
    "user": {"status": CharField(max_length=16, default="active")},
    "api_key": {
        "name": CharField(max_length=100, default="default"),
        "kind": CharField(max_length=16, default="both"),
        "previous_digest": CharField(max_length=64, null=True),
        "previous_expires_at": CharField(max_length=24, null=True),
        "expires_at": CharField(max_length=24, null=True),
        "last_used_at": CharField(max_length=24, null=True),
    },
    "audit_entry": {
        "sequence": BigIntegerField(default=0),
        "previous_digest": CharField(max_length=64, default=""),
    },
}

INDEXES = [
    ("api_key", ["previous_digest"], False),
    ("api_key", ["user_id", "name"], True),
    ("audit_entry", ["organization_id", "sequence"], True),
]


def up(migrator, db):
    set_guard(db, on=False)
    migrator.migrate(migrator.drop_index("api_key", index_name(db, "api_key", ["user_id"])))
    for table, columns in ADDED.items():
        migrator.migrate(*[migrator.add_column(table, name, field) for name, field in columns.items()])
    create_tables(db)
    db.execute_sql(
        """UPDATE organization SET recording_bytes =
            (SELECT COALESCE(SUM(size), 0) FROM recording WHERE recording.organization_id = organization.id) +
            (SELECT COALESCE(SUM(size), 0) FROM held_recording WHERE held_recording.organization_id = organization.id)"""
    )
    for (organization_id,) in db.execute_sql("SELECT id FROM organization").fetchall():
        count, digest = chain(db, organization_id)
        mark = db.param
        db.execute_sql(
            f"UPDATE organization SET audit_count = {mark}, audit_digest = {mark} WHERE id = {mark}",  # noqa: S608
            (count, digest, organization_id),
        )
    count, digest = chain(db, None)
    if count:
        db.execute_sql(
            f"INSERT INTO audit_chain (key, count, digest) VALUES ('', {db.param}, {db.param})",  # noqa: S608
            (count, digest),
        )
    migrator.migrate(*[migrator.add_index(*index) for index in INDEXES])
    set_guard(db, on=True)


def down(migrator, db):
    # A user had one key: the first one stays.
    db.execute_sql("DELETE FROM api_key WHERE name <> 'default'")
    set_guard(db, on=False)
    migrator.migrate(*[migrator.drop_index(table, index_name(db, table, columns)) for table, columns, _ in INDEXES])
    for table, columns in ADDED.items():
        migrator.migrate(*[migrator.drop_column(table, name) for name in columns])
    migrator.migrate(migrator.add_index("api_key", ["user_id"], True))
    set_guard(db, on=True)
    for table in ("known_address", "audit_chain"):
        migrator.migrate(migrator.drop_table(table))


def create_tables(db):
    class Organization(Model):
        id = CharField(primary_key=True, max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "organization"

    class User(Model):
        id = CharField(primary_key=True, max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "user"

    class KnownAddress(Model):
        id = CharField(primary_key=True, max_length=24)
        organization = ForeignKeyField(Organization, on_delete="RESTRICT")
        user = ForeignKeyField(User, on_delete="RESTRICT", index=False)
        digest = CharField(max_length=64)
        last_used_at = CharField(max_length=24)

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "known_address"
            indexes = ((("user", "digest"), True),)

    class AuditChain(Model):
        key = CharField(primary_key=True, max_length=24)
        count = BigIntegerField(default=0)
        digest = CharField(max_length=64, default="")

        class Meta:
            database = db
            legacy_table_names = False
            table_name = "audit_chain"

    db.create_tables([KnownAddress, AuditChain])


def chain(db, organization_id):
    """Number and chain the entries of an organization, or of none, in the order they were written."""
    mark, fields = db.param, "id, at, action, user_id, client, request_id, subject, details"
    whose = "organization_id IS NULL" if organization_id is None else f"organization_id = {mark}"
    given = () if organization_id is None else (organization_id,)
    count, digest, last = 0, "", ("", "")
    while True:
        rows = db.execute_sql(
            f"SELECT {fields} FROM audit_entry WHERE {whose} AND (at, id) > ({mark}, {mark}) ORDER BY at, id LIMIT {BATCH}",  # noqa: S608
            (*given, *last),
        ).fetchall()
        for row in rows:
            count += 1
            db.execute_sql(
                f"UPDATE audit_entry SET sequence = {mark}, previous_digest = {mark} WHERE id = {mark}",  # noqa: S608
                (count, digest, row[0]),
            )
            digest = entry_digest(organization_id, count, digest, row)
        if len(rows) < BATCH:
            return count, digest
        last = (rows[-1][1], rows[-1][0])


def set_guard(db, on):
    """Let the database refuse to change entries, or not while they are being chained."""
    sqlite = isinstance(db, SqliteDatabase)
    names = ("audit_entry_UPDATE", "audit_entry_DELETE") if sqlite else ("audit_entry_change", "audit_entry_truncate")
    if not on:
        for name in names:
            db.execute_sql(f"DROP TRIGGER {name}" if sqlite else f"DROP TRIGGER {name} ON audit_entry")
    elif sqlite:
        for change in ("UPDATE", "DELETE"):
            db.execute_sql(
                f"""CREATE TRIGGER audit_entry_{change} BEFORE {change} ON audit_entry
                    BEGIN SELECT RAISE(ABORT, 'audit entries are final'); END"""
            )
    else:
        db.execute_sql(
            """CREATE TRIGGER audit_entry_change BEFORE UPDATE OR DELETE ON audit_entry
                FOR EACH ROW EXECUTE FUNCTION audit_entry_is_final()"""
        )
        db.execute_sql(
            """CREATE TRIGGER audit_entry_truncate BEFORE TRUNCATE ON audit_entry
                FOR EACH STATEMENT EXECUTE FUNCTION audit_entry_is_final()"""
        )


def index_name(db, table, columns):
    return next(index.name for index in db.get_indexes(table) if index.columns == columns)

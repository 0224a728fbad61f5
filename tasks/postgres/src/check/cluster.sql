-- What a whole cluster has that matters to an upgrade by logical replication; the form is that of catalog.sql.
-- {databases} is how many databases are replicated.
with finding (severity, what, example) as (
    select 'block', 'replication slot: it would be lost', format('%s (%s, %s)', slot_name, slot_type,
        case when active then 'active' else 'inactive' end)
    from pg_replication_slots where slot_name !~ '^hostler_(up|back)_[0-9]+$' and not temporary
        and not (slot_name ~ '^pg_[0-9]+_sync_[0-9]+_[0-9]+$')
    union all
    select 'know', 'attached standby: it has to be built again', format('%s %s', application_name,
        coalesce(client_addr::text, 'local'))
    from pg_stat_replication r where not exists (
        select from pg_replication_slots s where s.active_pid = r.pid and s.slot_type = 'logical')
    union all
    select 'block', 'transaction older than 5 minutes: a new slot waits for it',
        format('process %s, %s, since %s', pid, usename, xact_start::timestamp(0))
    from pg_stat_activity
    where xact_start < now() - interval '5 minutes' and backend_type = 'client backend' and pid <> pg_backend_pid()
    union all
    select 'block', 'wal_level has to be logical: set it and restart the cluster', format('it is %s', setting)
    from pg_settings where name = 'wal_level' and setting <> 'logical'
    union all
    select 'block', 'too few free replication slots: raise max_replication_slots and restart the cluster',
        format('%s in all, %s needed', current_setting('max_replication_slots'), needed)
    from (select 2 * {databases} + (select count(*) from pg_replication_slots
              where slot_name !~ '^hostler_(up|back)_[0-9]+$' and slot_name !~ '^pg_[0-9]+_sync_') as needed) as n
    where current_setting('max_replication_slots')::int < needed
    union all
    select 'block', 'too few free senders of WAL: raise max_wal_senders and restart the cluster',
        format('%s in all, %s needed', current_setting('max_wal_senders'), needed)
    from (select 2 * {databases} + 1 + (select count(*) from pg_stat_replication
              where application_name !~ '^(hostler_(up|back)_|pg_[0-9]+_sync_)') as needed) as n
    where current_setting('max_wal_senders')::int < needed
    union all
    select 'block', 'too few workers for the way back: raise max_logical_replication_workers and restart the cluster',
        format('%s in all, %s needed', current_setting('max_logical_replication_workers'), {databases})
    where current_setting('max_logical_replication_workers')::int < {databases}
    union all
    select 'block', 'too few background workers for the way back: raise max_worker_processes and restart the cluster',
        format('%s in all, %s needed', current_setting('max_worker_processes'), {databases} + 1)
    where current_setting('max_worker_processes')::int < {databases} + 1
    union all
    select 'know', 'max_slot_wal_keep_size is set: a slow copy loses its place', setting || ' MB'
    from pg_settings where name = 'max_slot_wal_keep_size' and setting <> '-1'
    union all
    select 'know', 'synchronous_standby_names is set: the new cluster has no standby to wait for', setting
    from pg_settings where name = 'synchronous_standby_names' and setting <> ''
    union all
    select 'block', 'the cluster is a standby: upgrade its primary', current_setting('cluster_name')
    where pg_is_in_recovery()
    union all
    select 'block', 'database that allows no connections: drop it or allow them', datname::text
    from pg_database where not datallowconn and datname <> 'template0'
    union all
    select 'know', 'session of the role postgres: the fence of the switch lets this role in; end it before',
        format('process %s, %s', pid, application_name)
    from pg_stat_activity
    where backend_type = 'client backend' and usename = 'postgres' and application_name !~ '^hostler'
    union all
    select 'do', 'setting of a role or database: it is copied with the schema', format('%s/%s',
        coalesce((select datname from pg_database where oid = setdatabase), '*'),
        coalesce((select rolname from pg_roles where oid = setrole), '*'))
    from pg_db_role_setting
    union all
    select 'do', 'role: it is copied with its password and memberships', rolname::text
    from pg_roles where rolname <> 'postgres' and rolname !~ '^pg_'
    union all
    select 'block', 'role whose name begins with pg_: newer versions reserve such names', rolname::text
    from pg_roles where rolname ~ '^pg_' and oid >= 16384
    union all
    select 'do', 'tablespace: the new cluster uses the same folder', format('%s %s', spcname,
        pg_tablespace_location(oid))
    from pg_tablespace where spcname !~ '^pg_'
    union all
    select 'know', 'WAL archiving is not carried over: set it up for the new cluster, with a place of its own',
        'archive_mode = ' || setting
    from pg_settings where name = 'archive_mode' and setting <> 'off'
    union all
    select 'know', 'preloaded library: its jobs run on both clusters until the old one is dropped', setting
    from pg_settings where name = 'shared_preload_libraries' and setting <> ''
    union all
    select 'block', 'configuration that breaks the next start', format('%s:%s %s', sourcefile, sourceline, error)
    from pg_file_settings f where error is not null and sourcefile is not null and not exists (
        -- Such a setting waits for a restart, which is no mistake.
        select from pg_settings s where s.name = f.name and s.context = 'postmaster')
)
select severity, what, count(*), left(string_agg(example, ', ' order by example) filter (where place <= 10), 400)
from (select severity, what, example, row_number() over (partition by severity, what order by example) as place
      from finding) as numbered
group by severity, what

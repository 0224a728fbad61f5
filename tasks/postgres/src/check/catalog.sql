-- What one database holds that an upgrade by logical replication cannot carry (block), has to deal with (do), or that
-- an operator should know. Each branch: severity, what, one example. Only catalogs are read, with AccessShare locks.
-- {to} is the version that the upgrade goes to. Objects of an extension are the extension's own affair.
with relation as (
    select c.oid, c.relkind, c.relpersistence, c.relreplident, format('%I.%I', n.nspname, c.relname) as named
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
      and not exists (select from pg_depend d
                      where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
), version as (
    select current_setting('server_version_num')::int / 10000 as here
), finding (severity, what, example) as (
    select 'block', 'table without a replica identity: give it a primary key, or REPLICA IDENTITY FULL', named
    from relation r
    where relkind = 'r' and relpersistence = 'p' and (relreplident = 'n'
        or relreplident = 'd' and not exists (
            select from pg_index where indrelid = r.oid and indisprimary and indimmediate and indisvalid)
        or relreplident = 'i' and not exists (
            select from pg_index where indrelid = r.oid and indisreplident and indimmediate and indisvalid))
    union all
    select 'block', 'table that belongs to an extension: the new cluster fills it itself, and rows would collide',
        format('%I.%I', n.nspname, c.relname)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
        join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
    where c.relkind = 'r' and c.relpersistence = 'p'
    union all
    select 'know', 'table with REPLICA IDENTITY FULL: each change is a scan of it on the new cluster', named
    from relation where relkind = 'r' and relreplident = 'f'
    union all
    select 'know', 'unlogged table: it arrives empty', named
    from relation where relkind in ('r', 'p') and relpersistence = 'u'
    union all
    select 'know', 'temporary table of a session: it ends with the session', named
    from (select format('%I.%I', n.nspname, c.relname) as named
          from pg_class c join pg_namespace n on n.oid = c.relnamespace
          where c.relpersistence = 't' and c.relkind = 'r') as temporary
    union all
    select 'do', 'sequence: its value is copied in the switch', named from relation where relkind = 'S'
    union all
    select 'do', 'materialized view: it is refreshed on the new cluster', named from relation where relkind = 'm'
    union all
    select 'block', 'foreign table: its rows are not replicated; drop it and make it again afterwards', named
    from relation where relkind = 'f'
    union all
    select 'block', 'large objects are not replicated: move them into a column of type bytea', count(*)::text
    from pg_largeobject_metadata having count(*) > 0
    union all
    select 'block', 'trigger that is ENABLE ALWAYS or REPLICA: it would fire a second time on the new cluster',
        format('%I on %s', tgname, tgrelid::regclass)
    from pg_trigger where tgenabled in ('A', 'R') and not tgisinternal
    union all
    select 'block', 'rule that is ENABLE ALWAYS or REPLICA: it would act a second time on the new cluster',
        format('%I on %s', rulename, ev_class::regclass)
    from pg_rewrite where ev_enabled in ('A', 'R')
    union all
    select 'block', 'event trigger: statements of the upgrade would run through it; disable it', evtname::text
    from pg_event_trigger where evtenabled <> 'D'
    union all
    select 'know', 'generated column: it is computed by the new cluster', format('%s.%I', r.named, a.attname)
    from pg_attribute a join relation r on r.oid = a.attrelid
    where a.attgenerated <> '' and a.attnum > 0 and not a.attisdropped
    union all
    select 'know', 'column that holds object identifiers: they are numbers of the old cluster only',
        format('%s.%I %s', r.named, a.attname, format_type(a.atttypid, null))
    from pg_attribute a join relation r on r.oid = a.attrelid
    where r.relkind in ('r', 'm', 'p') and a.attnum > 0 and not a.attisdropped and a.atttypid in (
        'oid'::regtype, 'regproc'::regtype, 'regprocedure'::regtype, 'regoper'::regtype, 'regoperator'::regtype,
        'regclass'::regtype, 'regtype'::regtype, 'regconfig'::regtype, 'regdictionary'::regtype,
        'regnamespace'::regtype, 'regrole'::regtype, 'regcollation'::regtype)
    union all
    select 'know', 'extension: the new cluster makes the version that is installed for it',
        format('%s %s', extname, extversion)
    from pg_extension where extname <> 'plpgsql'
    union all
    select 'block', 'publication: its subscribers would lose their place', pubname::text
    from pg_publication where pubname !~ '^hostler_(up|back)$'
    union all
    select 'block', 'subscription: it would have to move with the cluster', subname::text
    from pg_subscription
    where subdbid = (select oid from pg_database where datname = current_database())
      and subname !~ '^hostler_(up|back)_[0-9]+$'
    union all
    select 'block', 'transaction prepared for two-phase commit: no slot can be made while it is there', gid
    from pg_prepared_xacts where database = current_database()
    union all
    select 'block', 'postfix operator: version 14 and later have none', format('%s (%s)', oprname, oprleft::regtype)
    from pg_operator, version where oprright = 0 and oid >= 16384 and here < 14 and {to} >= 14
    union all
    select 'block', 'aggregate on an array function whose argument types changed in version 14',
        g.aggfnoid::regprocedure::text
    from pg_aggregate g, version
    where g.aggfnoid >= 16384 and here < 14 and {to} >= 14 and g.aggtransfn::oid in (
        select oid from pg_proc where pronamespace = 'pg_catalog'::regnamespace and proname in ('array_append',
            'array_cat', 'array_position', 'array_positions', 'array_prepend', 'array_remove', 'array_replace',
            'width_bucket'))
    union all
    select 'block', 'operator on an array function whose argument types changed in version 14',
        format('%s (%s, %s)', oprname, oprleft::regtype, oprright::regtype)
    from pg_operator, version
    where oid >= 16384 and here < 14 and {to} >= 14 and oprcode::oid in (
        select oid from pg_proc where pronamespace = 'pg_catalog'::regnamespace and proname in ('array_append',
            'array_cat', 'array_position', 'array_positions', 'array_prepend', 'array_remove', 'array_replace'))
    union all
    select 'block', 'conversion of encodings: its function has another form from version 14 on', conname::text
    from pg_conversion, version where oid >= 16384 and here < 14 and {to} >= 14
    union all
    select 'know', 'collation of another version than its library: the copy builds its indexes anew', collname::text
    from pg_collation where collversion <> pg_collation_actual_version(oid)
    union all
    select 'know', 'view on system catalogs: it may not fit the new version', v.named
    from relation v where v.relkind in ('v', 'm') and exists (
        select from pg_rewrite w
            join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
            join pg_class s on d.refclassid = 'pg_class'::regclass and s.oid = d.refobjid
        where w.ev_class = v.oid and s.relkind in ('v', 'r') and s.relnamespace = 'pg_catalog'::regnamespace)
    union all
    select 'know', 'index that is not valid', indexrelid::regclass::text from pg_index where not indisvalid
    union all
    select 'know', 'constraint that was never checked (NOT VALID)', format('%I on %s', conname, conrelid::regclass)
    from pg_constraint where not convalidated and conrelid <> 0
    union all
    select 'know', 'foreign server: what it links to sees another client', srvname::text from pg_foreign_server
)
select severity, what, count(*), left(string_agg(example, ', ' order by example) filter (where place <= 10), 400)
from (select severity, what, example, row_number() over (partition by severity, what order by example) as place
      from finding) as numbered
group by severity, what

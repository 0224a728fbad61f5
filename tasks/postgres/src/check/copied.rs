//! What a copy of the old cluster's files meets, beside everything else: `pg_upgrade` refuses some of it, and only when the
//! copy is there.

use super::{Finding, Severity, Wish};
use crate::error::Error;
use crate::server::{Bounds, Row, Session};
use crate::switchover::peer::Peer;

/// For each database, in the form of `catalog.sql`.
const STATEMENT: &str = "select 'block', what, count(*), left(string_agg(example, ', ' order by example), 400) from ( \
    select 'column that holds object identifiers, which pg_upgrade does not carry over: change its type, or --method logical' \
        as what, format('%s.%I %s', c.oid::regclass, a.attname, format_type(a.atttypid, null)) as example \
    from pg_attribute a join pg_class c on c.oid = a.attrelid \
    where c.oid >= 16384 and c.relkind in ('r', 'm', 'p') and a.attnum > 0 and not a.attisdropped and a.atttypid in ( \
        'regproc'::regtype, 'regprocedure'::regtype, 'regoper'::regtype, 'regoperator'::regtype, 'regconfig'::regtype, \
        'regdictionary'::regtype, 'regnamespace'::regtype, 'regcollation'::regtype) \
    union all \
    select 'collation of another version than its library: a copy would keep its indexes: reindex them, or --method logical', \
        collname::text from pg_collation where collversion <> pg_collation_actual_version(oid)) as found group by what";

/// All of it.
pub(super) async fn all(
    wish: &Wish<'_>,
    admin: &Session,
    databases: &[(String, String, u64)],
) -> Result<Vec<Finding>, Error> {
    let mut found = Vec::new();
    let spaces =
        admin.value("select string_agg(spcname, ', ') from pg_tablespace where spcname !~ '^pg_'").await?;
    if let Some(names) = spaces {
        let what = "tablespaces, whose folders a copy would share: move their tables, or --method logical";
        found.push(Finding::new(Severity::Block, what, names));
    }
    for (_, name, _) in databases {
        let session = Session::open(wish.old, name, Bounds::LOOK).await?;
        let read = |row: Row| Finding::read(row, Some(name));
        found.extend(session.rows(STATEMENT).await?.into_iter().filter_map(read));
    }
    let (socket, port) = (wish.old.socket.display(), wish.old.port);
    let peer = Peer::new(wish.old, &format!("host='{socket}' port={port} user=postgres"))?;
    if let Err(error) = peer.look().await {
        let what = "the role postgres may not replicate by the socket: add `local replication postgres peer` to pg_hba.conf";
        found.push(Finding::new(Severity::Block, what, error.to_string()));
    }
    Ok(found)
}

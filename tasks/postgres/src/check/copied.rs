//! What a copy of the old cluster's files meets, beside everything else: `pg_upgrade` refuses some of it, and only when the
//! copy is there.

use std::path::Path;

use super::{Finding, Severity, Wish};
use crate::error::Error;
use crate::layout::spaces;
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

/// Whether each tablespace can be copied beside itself.
async fn room_for_spaces(wish: &Wish<'_>, admin: &Session, found: &mut Vec<Finding>) -> Result<(), Error> {
    let mut block = |what: &str, example: String| found.push(Finding::new(Severity::Block, what, example));
    if let Err(error) = spaces::of(wish.old) {
        block("tablespace in the folder of data: move its tables, or --method logical", error.to_string());
        return Ok(());
    }
    let all = "select pg_tablespace_location(oid), pg_tablespace_size(oid)::text from pg_tablespace \
        where spcname !~ '^pg_'";
    for row in admin.rows(all).await? {
        let [Some(place), Some(bytes)] = row.as_slice() else { continue };
        let beside = spaces::beside(Path::new(place), wish.to, &wish.old.name);
        if beside.exists() {
            block(
                "the place for the copy of a tablespace exists: move it away",
                beside.display().to_string(),
            );
        }
        let needed = bytes.parse::<u64>().unwrap_or(u64::MAX) / 5 * 6;
        let free = super::free(&beside)?;
        if free < needed {
            let example =
                format!("{} MiB free at {}, {} MiB needed", free >> 20, beside.display(), needed >> 20);
            block("too little room for the copy of a tablespace", example);
        }
    }
    Ok(())
}

/// All of it.
pub(super) async fn all(
    wish: &Wish<'_>,
    admin: &Session,
    databases: &[(String, String, u64)],
) -> Result<Vec<Finding>, Error> {
    let mut found = Vec::new();
    room_for_spaces(wish, admin, &mut found).await?;
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

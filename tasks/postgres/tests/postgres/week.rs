//! A week of work with some backups, of which random instants are restored, and nights of drills.
//!
//! Continuous integration takes a few of them; `tasks/postgres/bench/week` takes thirty of each.

use crate::backup::back_up;
use crate::kit::output;
use crate::restore::{restore, undo};
use crate::store::{ID, Store};

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// One session that commits row after row, in the middle of larger transactions: so the order of the commits is that of
/// their times, and the server itself can say which rows had been there at an instant.
fn day(store: &Store, port: u16) {
    store.lab.sql(
        port,
        "postgres",
        "do $$ begin
           for k in 1..200 loop
             insert into t (filler) values (repeat('x', 200)); commit;
             if k % 50 = 0 then insert into t (filler) select repeat('y', 100) from generate_series(1, 500); commit; end if;
             if k % 70 = 0 then insert into t (filler) values ('never'); rollback; end if;
           end loop;
         end $$",
    );
    store.switch(port);
}

#[test]
fn the_rows_of_random_instants_of_a_week_come_back_exactly() {
    let store = Store::new();
    let port = store.cluster(15, "track_commit_timestamp = on");
    let sql = |statement: &str| store.lab.sql(port, "postgres", statement);
    sql("create table t (i bigserial primary key, filler text)");
    for name in 0..7 {
        if name % 3 == 0 {
            back_up(&store);
            if name == 0 {
                sql("create table began as select clock_timestamp() as at");
            }
        }
        day(&store, port);
    }
    for at in 0..number("HOSTLER_WEEK_INSTANTS", 3) {
        let instant = sql(
            "select to_char((at + random() * (last - at)) at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') \
             from began, (select max(pg_xact_commit_timestamp(xmin)) as last from t) l",
        );
        let rows = "select count(*) || ' ' || coalesce(sum(i), 0) || ' ' || md5(coalesce(string_agg(filler, '' order by i), '')) from t";
        let wanted = sql(&format!("{rows} where pg_xact_commit_timestamp(xmin) <= '{instant}'"));
        let name = format!("{}w{at}", store.lab.name());
        let (status, restored, said) = restore(&store, &name, &["--time", &instant]);
        assert_eq!(status, 0, "{instant}: {said}");
        assert_eq!(store.lab.sql(restored, "postgres", rows), wanted, "{instant}");
        undo(&store, &name);
    }
    // The living cluster may fill a segment at any time; a copy of it would write on another timeline.
    let foreign =
        || { store.names(&format!("{ID}.wal/")) }.into_iter().find(|name| !name.contains("/00000001/"));
    assert_eq!(foreign(), None, "no restore wrote into the archive");
    // Nights of drills beside the cluster that works: they touch neither its archive nor its slots.
    sql("select pg_create_physical_replication_slot('standby', true)");
    let folder = store.lab.path("data").display().to_string();
    for night in 0..number("HOSTLER_MONTH_NIGHTS", 1) {
        day(&store, port);
        if night % 7 == 6 {
            back_up(&store);
        }
        let look = || {
            (
                store.names(&format!("{ID}/")),
                foreign(),
                sql("select slot_name, restart_lsn, active from pg_replication_slots"),
            )
        };
        let before = look();
        let (status, _, said) = output(&mut store.at(&["drill"], &["--folder", &folder]));
        assert!(status == 0 && said.contains("can be restored"), "night {night}: {status} {said}");
        assert_eq!(look(), before, "night {night}");
    }
}

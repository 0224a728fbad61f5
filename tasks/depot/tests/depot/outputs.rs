//! Where a backup that is got back goes.

use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use crate::support::caller::{Caller, write};
use crate::support::depot::Depot;
use crate::support::noise;
use crate::support::proxy::{Fate, Proxy};
use crate::support::servers::Strict;

#[test]
fn a_target_is_looked_at_before_the_first_byte() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "pipe_open_timeout: 20");
    let bytes = noise(1, 6 << 20);
    depot.put("db/a", &bytes);
    let at = |name: &str| depot.path(name).to_str().unwrap().to_owned();
    proxy.rule(|_| Fate::Pass);
    std::fs::create_dir(at("folder")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    for (name, why) in [("folder", "is a folder"), ("socket", "is a socket"), ("no/folder", "does not exist")]
    {
        depot.run(&["get", "db/a", "-o", &at(name)]).fails(9, why).fails(9, name);
    }
    depot.run(&["get", "db/a", "-o", "/dev/no-such-disk"]).fails(9, "no such device");
    assert_eq!(proxy.count(), 0, "nothing was asked of the server");
    // Devices and pipes are written into.
    depot.run(&["get", "db/a", "-o", "/dev/null"]).ok();
    assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    assert!(depot.run(&["get", "db/a", "-o", "-"]).ok().out == bytes);
    assert!(depot.run(&["get", "db/a", "-o", "/dev/stdout"]).ok().out == bytes);
    nix::unistd::mkfifo(at("pipe").as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("pipe", at("to pipe")).unwrap();
    for name in ["pipe", "to pipe"] {
        let read = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut all = Vec::new();
                std::fs::File::open(at("pipe")).unwrap().read_to_end(&mut all).unwrap();
                all
            });
            depot.run(&["get", "db/a", "-o", &at(name)]).ok();
            reader.join().unwrap()
        });
        assert!(read == bytes, "{name}");
        assert!(std::fs::symlink_metadata(at("pipe")).unwrap().file_type().is_fifo());
    }
    // A link is followed, and the file that it leads to keeps its mode.
    std::fs::write(at("file"), "old").unwrap();
    std::fs::set_permissions(at("file"), std::fs::Permissions::from_mode(0o604)).unwrap();
    std::os::unix::fs::symlink("file", at("link")).unwrap();
    depot.run(&["get", "db/a", "-o", &at("link")]).ok();
    assert!(std::fs::symlink_metadata(at("link")).unwrap().is_symlink());
    assert!(std::fs::read(at("file")).unwrap() == bytes);
    assert_eq!(std::fs::metadata(at("file")).unwrap().mode() & 0o777, 0o604);
    // The same contents are there already.
    proxy.rule(|seen| if seen.is_range() { Fate::Answer(403, "AccessDenied") } else { Fate::Pass });
    depot.run(&["get", "db/a", "--if-same", "-o", &at("link")]).ok();
    std::fs::write(at("file"), &bytes[1..]).unwrap();
    depot.run(&["get", "db/a", "--if-same", "-o", &at("link")]).fails(4, "AccessDenied");
}

#[test]
fn backint_writes_into_what_is_there_and_reads_a_pipe_once() {
    let server = Strict::start();
    let depot = Depot::new(server.address, "pipe_open_timeout: 20\npipe_idle_timeout: 20");
    let caller = Caller::new(&depot);
    let name = caller.pipe("data");
    let saved = caller.backup(&[(name.clone(), noise(2, 6 << 20))]);
    let id = saved.lines[0].1[0].clone();
    std::fs::create_dir(depot.path("folder")).unwrap();
    let (folder, link) = (depot.path("folder"), depot.path("link"));
    std::os::unix::fs::symlink("made", &link).unwrap();
    let to = |path: &str| format!("#EBID {} {} {}", write(&id), write(&name), write(path));
    let entries =
        [to(folder.to_str().unwrap()), to(link.to_str().unwrap()), to("/dev/null"), to("/dev/null")];
    let answer = caller.call("restore", &entries, 4);
    let told: Vec<&str> = answer.lines.iter().map(|line| line.0.as_str()).collect();
    assert_eq!(told, ["#ERROR", "#RESTORED", "#RESTORED", "#ERROR"], "{}", answer.text);
    assert!(answer.text.contains("is a folder") && answer.text.contains("named twice"), "{}", answer.text);
    assert!(std::fs::read(depot.path("made")).unwrap() == noise(2, 6 << 20));
    // One pipe and two readers, in two calls: one of them is refused at once.
    let name = caller.pipe("shared");
    let entry = [format!("#PIPE {}", write(&name))];
    let first = caller.start("backup", &entry, 1);
    let mut pipe = crate::support::caller::open_to_write(&name);
    std::io::Write::write_all(&mut pipe, &noise(3, 6 << 20)).unwrap();
    let second = caller.call("backup", &entry, 1);
    assert_eq!(second.lines[0].0, "#ERROR", "{}", second.text);
    assert!(second.text.contains("is reading this pipe"), "{}", second.text);
    let input = std::fs::File::from(std::os::fd::OwnedFd::from(
        std::fs::OpenOptions::new().read(true).write(true).open(&name).unwrap(),
    ));
    let mut command = depot.command(&["put", "db/pipe"]);
    command.stdin(input);
    let third = command.spawn().unwrap();
    // The command holds the pipe open for writing too.
    drop(command);
    crate::support::depot::ended(third).fails(9, "is reading this pipe");
    drop(pipe);
    let first = first.end();
    assert_eq!(first.lines[0].0, "#SAVED", "{}", first.text);
    assert_eq!(first.lines[0].1[2], (6 << 20).to_string());
}

#[test]
fn of_two_that_write_into_one_pipe_one_is_refused() {
    let server = Strict::start();
    let depot = Depot::new(server.address, "pipe_open_timeout: 20");
    let bytes = noise(7, 8 << 20);
    depot.put("db/a", &bytes);
    let pipe = depot.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let get = ["get", "db/a", "-o", pipe.to_str().unwrap()];
    let first = depot.command(&get).spawn().unwrap();
    let mut reader = std::fs::File::open(&pipe).unwrap();
    let mut all = vec![0; 1000];
    reader.read_exact(&mut all).unwrap();
    depot.run(&get).fails(8, "another hostler-depot is writing into this pipe");
    reader.read_to_end(&mut all).unwrap();
    crate::support::depot::ended(first).ok();
    assert!(all == bytes);
    // From one to another through a pipe is no conflict.
    let second = depot.command(&get).spawn().unwrap();
    let mut put = depot.command(&["put", "db/b"]);
    put.stdin(std::fs::File::open(&pipe).unwrap());
    let put = put.spawn().unwrap();
    crate::support::depot::ended(second).ok();
    crate::support::depot::ended(put).ok();
    assert!(depot.run(&["get", "db/b"]).ok().out == bytes);
}

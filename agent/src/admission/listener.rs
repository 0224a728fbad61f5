//! Whether PostgreSQL itself listens at a port: the process that listens at the server's socket, in a folder that root's
//! list names, has to be the one that listens at the port of the loopback address.
//!
//! Any local user can listen at a port that is free. So the owner is looked at before a connection and once more when it
//! is made: the same listener at both times has it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::User;

use super::policy::Postgres;
use super::{PATH, Refusal};

/// The user that PostgreSQL runs as.
pub const USER: &str = "postgres";

/// How long a server that is there may take for one answer.
const WITHIN: Duration = Duration::from_secs(10);

/// A server that was proved to be PostgreSQL of this host.
#[derive(Debug, PartialEq, Eq)]
pub struct Server {
    pid: i32,
    port: u16,
}

impl Server {
    /// Finds the process that listens at the server's socket.
    ///
    /// # Errors
    /// Root's list does not have the folder or the port, others could make a socket there, it does not answer, or it
    /// belongs to another user than `postgres`.
    pub fn at(socket: &Path, port: u16, policy: &Postgres) -> Result<Self, Refusal> {
        let refused = |why: String| Err(Refusal::Refused(why));
        let shown = socket.display();
        let real = fs::canonicalize(socket).map_err(|error| {
            Refusal::Refused(format!("PostgreSQL does not answer on port {port}: {shown}: {error}"))
        })?;
        if !policy.sockets.iter().any(|folder| fs::canonicalize(folder).is_ok_and(|folder| folder == real)) {
            return refused(format!(
                "the socket folder {shown} is refused: it is not in postgres.sockets in {PATH}"
            ));
        }
        if !policy.ports.contains(&port) {
            return refused(format!("port {port} is refused: it is not in postgres.ports in {PATH}"));
        }
        let user = User::from_name(USER).map_err(|errno| Refusal::io(USER)(errno.into()))?;
        let Some(user) = user else { return refused(format!("this host has no user {USER}")) };
        let meta = fs::metadata(&real).map_err(Refusal::io(&shown))?;
        let its_group = meta.mode() & 0o020 == 0 || meta.gid() == user.gid.as_raw();
        if ![0, user.uid.as_raw()].contains(&meta.uid()) || meta.mode() & 0o002 != 0 || !its_group {
            return refused(format!("others than {USER} can make a socket in {shown}"));
        }
        let path = real.join(format!(".s.PGSQL.{port}"));
        let away = |error: std::io::Error| {
            Refusal::Refused(format!(
                "PostgreSQL does not answer on port {port}: {}: {error}",
                path.display()
            ))
        };
        let stream = UnixStream::connect(&path).map_err(away)?;
        let peer = getsockopt(&stream, PeerCredentials).map_err(|errno| away(errno.into()))?;
        if peer.uid() != user.uid.as_raw() {
            return refused(format!("user {} listens at {}, not {USER}", peer.uid(), path.display()));
        }
        Ok(Self { pid: peer.pid(), port })
    }

    /// A connection to its port of the loopback address.
    ///
    /// # Errors
    /// It does not listen there, or another process does.
    pub fn connect(&self) -> Result<TcpStream, Refusal> {
        let port = self.port;
        let before = self.listeners()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = TcpStream::connect_timeout(&address, WITHIN).map_err(|error| {
            Refusal::Refused(format!("PostgreSQL does not answer on port {port}: {error}"))
        })?;
        stream.set_read_timeout(Some(WITHIN)).map_err(Refusal::io(address))?;
        stream.set_write_timeout(Some(WITHIN)).map_err(Refusal::io(address))?;
        if self.listeners()? != before {
            return Err(Refusal::Refused(format!(
                "another process began to listen on port {port}: try again"
            )));
        }
        Ok(stream)
    }

    /// The sockets that listen at the port: all of them this process's own.
    fn listeners(&self) -> Result<Vec<String>, Refusal> {
        let port = self.port;
        let mut sockets = Vec::new();
        for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
            match fs::read_to_string(table) {
                Ok(text) => sockets.extend(listening(&text, port)),
                // A kernel without IPv6.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Refusal::io(table)(error)),
            }
        }
        if sockets.is_empty() {
            return Err(Refusal::Refused(format!("PostgreSQL does not answer on port {port} of 127.0.0.1")));
        }
        let folder = format!("/proc/{}/fd", self.pid);
        let own: Vec<String> = fs::read_dir(&folder)
            .map_err(Refusal::io(&folder))?
            .flatten()
            .filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
            .collect();
        match sockets.iter().find(|inode| !own.contains(&format!("socket:[{inode}]"))) {
            None => Ok(sockets),
            Some(_) => Err(Refusal::Refused(format!(
                "the process that listens on port {port} is not PostgreSQL: no password is sent to it"
            ))),
        }
    }
}

/// The numbers of the sockets in a table of the kernel that listen at this port of the loopback address.
fn listening(table: &str, port: u16) -> Vec<String> {
    let word = |text: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(text));
    let (loopback, any) = (word([127, 0, 0, 1]), word([0, 0, 0, 0]));
    let mapped = format!("{any}{any}{}{loopback}", word([0, 0, 0xff, 0xff]));
    let ours = [loopback, any.clone(), any.repeat(4), mapped].map(|address| format!("{address}:{port:04X}"));
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (local, state, inode) = (words.get(1)?, words.get(3)?, words.get(9)?);
            (*state == "0A" && ours.iter().any(|address| address == local)).then(|| (*inode).to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn who_listens_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let me = Server { pid: i32::try_from(std::process::id()).unwrap(), port };
        assert!(me.connect().is_ok());
        // The parent of a test does not hold its socket.
        let other = Server { pid: std::os::unix::process::parent_id().cast_signed(), port };
        assert!(other.connect().unwrap_err().to_string().contains("is not PostgreSQL"));
        drop(listener);
        assert!(me.connect().unwrap_err().to_string().contains("does not answer"));
    }

    #[test]
    fn a_folder_or_port_that_root_did_not_list_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let policy = Postgres { sockets: vec![dir.path().into()], ports: vec![5432] };
        let said = |socket: &Path, port| Server::at(socket, port, &policy).unwrap_err().to_string();
        assert!(said(Path::new("/tmp"), 5432).contains("postgres.sockets"));
        assert!(said(dir.path(), 5433).contains("postgres.ports"));
    }
}

//! Logs in to PostgreSQL by SCRAM-SHA-256 (RFC 5802, 7677) and nothing else: what is sent proves that the sender has the
//! password, and does not hold it; the server's answer proves that it has the verifier. A server that asks for the
//! password itself, or for its MD5, gets nothing. (libpq does as much from version 16 on.)

use std::io::{self, Read, Write};

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The longest message that is read, in bytes.
const MAX_LEN: usize = 16 << 10;
/// How many messages follow a login until the server is ready: far fewer than this.
const MESSAGES: usize = 200;
/// PostgreSQL's own default is 4,096 rounds.
const ROUNDS: u32 = 1_000_000;

/// How a login ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Login {
    /// The password is right.
    In,
    /// The server knows another password, or no such role.
    Out,
    /// Neither is proved, and why.
    CannotTell(String),
}

/// Logs in as `role` to `database` with a password of plain ASCII.
///
/// # Errors
/// The connection ended or the server broke the protocol.
pub fn login(
    stream: &mut (impl Read + Write),
    role: &str,
    database: &str,
    password: &[u8],
) -> io::Result<Login> {
    if !password.is_ascii() {
        return Ok(Login::CannotTell("the password has a character outside of ASCII".to_owned()));
    }
    let mut random = [0; 18];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let mut talk = Talk { stream };
    talk.start(role, database)?;
    talk.converse(&BASE64.encode(random), role, password)
}

struct Talk<'a, S> {
    stream: &'a mut S,
}

impl<S: Read + Write> Talk<'_, S> {
    fn start(&mut self, role: &str, database: &str) -> io::Result<()> {
        let body =
            [b"\x00\x03\x00\x00user\0", role.as_bytes(), b"\0database\0", database.as_bytes(), b"\0\0"];
        self.send(&[], &body.concat())
    }

    fn converse(&mut self, nonce: &str, role: &str, password: &[u8]) -> io::Result<Login> {
        let cannot = |why: String| Ok(Login::CannotTell(why));
        let open = format!(
            "the server lets {role} in from 127.0.0.1 with any password, or asks for it in the clear: scram-sha-256 is needed in pg_hba.conf"
        );
        let (code, mechanisms) = match self.authentication()? {
            Ok(asked) => asked,
            Err(error) => return Ok(error.login()),
        };
        if code != 10 || !mechanisms.split(|byte| *byte == 0).any(|word| word == b"SCRAM-SHA-256") {
            return cannot(open);
        }
        let bare = format!("n=,r={nonce}");
        let first = format!("n,,{bare}");
        let length = u32::try_from(first.len()).map_err(io::Error::other)?;
        self.send(b"p", &[b"SCRAM-SHA-256\0", &length.to_be_bytes()[..], first.as_bytes()].concat())?;
        let (code, server) = match self.authentication()? {
            Ok(asked) => asked,
            Err(error) => return Ok(error.login()),
        };
        if code != 11 {
            return cannot(open);
        }
        let server = String::from_utf8(server).map_err(io::Error::other)?;
        let part = |name: &str| server.split(',').find_map(|part| part.strip_prefix(name));
        let (Some(both), Some(salt), Some(rounds)) = (part("r="), part("s="), part("i=")) else {
            return Err(broken("a part of its challenge is missing"));
        };
        let salt = BASE64.decode(salt).map_err(io::Error::other)?;
        let rounds: u32 = rounds.parse().map_err(io::Error::other)?;
        if !both.starts_with(nonce) || both.len() == nonce.len() || !(1..=ROUNDS).contains(&rounds) {
            return Err(broken("its challenge does not fit"));
        }
        let without = format!("c=biws,r={both}");
        let signed = format!("{bare},{server},{without}");
        let salted = salted(password, &salt, rounds);
        let client = Zeroizing::new(keyed(&salted[..], b"Client Key"));
        let signature = keyed(&Sha256::digest(&client[..]), signed.as_bytes());
        let proof: Vec<u8> = client.iter().zip(signature).map(|(key, sign)| key ^ sign).collect();
        self.send(b"p", format!("{without},p={}", BASE64.encode(proof)).as_bytes())?;
        let (code, last) = match self.authentication()? {
            Ok(asked) => asked,
            Err(error) => return Ok(error.login()),
        };
        let expected = BASE64.encode(keyed(&keyed(&salted[..], b"Server Key"), signed.as_bytes()));
        if code != 12 || last != format!("v={expected}").as_bytes() {
            return cannot(
                "the server does not prove that it knows the password: it is not the database".to_owned(),
            );
        }
        match self.authentication()? {
            Ok((0, _)) => {}
            Ok(_) => return Err(broken("it asks once more")),
            Err(error) => return Ok(error.login()),
        }
        // The database may still refuse the role.
        for _ in 0..MESSAGES {
            match self.message()? {
                (b'Z', _) => {
                    self.send(b"X", &[])?;
                    return Ok(Login::In);
                }
                (b'E', body) => return cannot(Refused::new(&body).text),
                _ => {}
            }
        }
        Err(broken("it does not get ready"))
    }

    fn send(&mut self, kind: &[u8], body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(body.len().saturating_add(4)).map_err(io::Error::other)?;
        self.stream.write_all(&[kind, &length.to_be_bytes()[..], body].concat())
    }

    fn message(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head)?;
        let [kind, a, b, c, d] = head;
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).map_err(io::Error::other)?;
        let length = length.checked_sub(4).filter(|length| *length <= MAX_LEN);
        let mut body = vec![0; length.ok_or_else(|| broken("the length of a message is wrong"))?];
        self.stream.read_exact(&mut body)?;
        Ok((kind, body))
    }

    /// What the server asks for: its code and what comes with it; or its refusal.
    fn authentication(&mut self) -> io::Result<Result<(u32, Vec<u8>), Refused>> {
        for _ in 0..MESSAGES {
            match self.message()? {
                (b'R', body) => {
                    let (code, rest) =
                        body.split_at_checked(4).ok_or_else(|| broken("a message is too short"))?;
                    let code = u32::from_be_bytes(code.try_into().map_err(io::Error::other)?);
                    return Ok(Ok((code, rest.to_owned())));
                }
                (b'E', body) => return Ok(Err(Refused::new(&body))),
                // A notice.
                (b'N', _) => {}
                _ => return Err(broken("an answer is none of a login")),
            }
        }
        Err(broken("it asks for nothing"))
    }
}

/// What the server says when it refuses.
struct Refused {
    code: String,
    text: String,
}

impl Refused {
    fn new(body: &[u8]) -> Self {
        let field = |kind: u8| {
            let found = body.split(|byte| *byte == 0).find(|field| field.first() == Some(&kind));
            String::from_utf8_lossy(found.and_then(|field| field.get(1..)).unwrap_or_default()).into_owned()
        };
        Self { code: field(b'C'), text: format!("the server says: {}", field(b'M')) }
    }

    fn login(self) -> Login {
        // invalid_password
        if self.code == "28P01" { Login::Out } else { Login::CannotTell(self.text) }
    }
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("this is no PostgreSQL: {why}"))
}

fn keyed(key: &[u8], text: &[u8]) -> [u8; 32] {
    // Every length of a key is admitted.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    mac.update(text);
    mac.finalize().into_bytes().into()
}

/// `Hi` of RFC 5802.
fn salted(password: &[u8], salt: &[u8], rounds: u32) -> Zeroizing<[u8; 32]> {
    let mut last = keyed(password, &[salt, &[0, 0, 0, 1]].concat());
    let mut all = Zeroizing::new(last);
    for _ in 1..rounds {
        last = keyed(password, &last);
        all.iter_mut().zip(last).for_each(|(all, last)| *all ^= last);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that says these bytes, whatever it is sent.
    struct Said<'a>(&'a [u8], Vec<u8>);

    impl Read for Said<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Said<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn asked(code: u32, more: &[u8]) -> Vec<u8> {
        let length = u32::try_from(8 + more.len()).unwrap();
        [b"R", &length.to_be_bytes()[..], &code.to_be_bytes()[..], more].concat()
    }

    const PASSWORD: &[u8] = b"a-password-of-the-test";

    #[test]
    fn the_example_of_the_standard() {
        // RFC 7677, section 3.
        let nonce = "rOprNGfwEbeRWgbNEkqO";
        let challenge =
            b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let salted = salted(b"pencil", &BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(), 4096);
        let signed = [
            b"n=user,r=".as_slice(),
            nonce.as_bytes(),
            b",",
            challenge,
            b",c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        ]
        .concat();
        let client = keyed(&salted[..], b"Client Key");
        let signature = keyed(&Sha256::digest(client), &signed);
        let proof: Vec<u8> = client.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        assert_eq!(BASE64.encode(proof), "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        let server = keyed(&keyed(&salted[..], b"Server Key"), &signed);
        assert_eq!(BASE64.encode(server), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn a_server_that_asks_for_the_password_gets_nothing_of_it() {
        for first in [asked(3, b""), asked(5, b"salt"), asked(0, b""), asked(10, b"OTHER\0\0"), asked(7, b"")]
        {
            let mut server = Said(&first, Vec::new());
            let login = login(&mut server, "app", "db", PASSWORD).unwrap();
            assert!(matches!(&login, Login::CannotTell(why) if why.contains("scram-sha-256")), "{login:?}");
            assert!(!server.1.windows(10).any(|part| PASSWORD.windows(10).any(|own| own == part)));
        }
        // First as it should be, then otherwise.
        for second in [asked(3, b""), asked(0, b"")] {
            let said = [asked(10, b"SCRAM-SHA-256\0\0"), second].concat();
            let login = login(&mut Said(&said, Vec::new()), "app", "db", PASSWORD).unwrap();
            assert!(matches!(login, Login::CannotTell(_)), "{login:?}");
        }
    }

    #[test]
    fn what_no_server_says_is_an_error_and_never_a_login() {
        let sasl = asked(10, b"SCRAM-SHA-256\0\0");
        for said in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"R\0\0\0\0",
            b"R\xff\xff\xff\xff",
            b"R\0\0\0\x05\0",
            b"S\0\0\0\x04",
            &[&sasl[..], &asked(11, b"r=other,s=AAAA,i=1")].concat(),
            &[&sasl[..], &asked(11, b"nothing")].concat(),
            &[&sasl[..], &asked(11, b"\xff")].concat(),
        ] {
            assert!(login(&mut Said(said, Vec::new()), "app", "db", PASSWORD).is_err(), "{said:?}");
        }
    }
}

//! Files of configuration, read with a bound.

use std::fs;
use std::path::Path;

use crate::error::Error;

/// The largest file of configuration that is read.
const MOST: u64 = 4 << 20;

/// What a file holds; `None` if there is no such file.
///
/// # Errors
/// If it is there and cannot be read, is no text, or has more than 4 MiB.
pub fn read(path: &Path) -> Result<Option<String>, Error> {
    let size = match fs::metadata(path) {
        Ok(is) => is.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::local(path.display())(error)),
    };
    if size > MOST {
        return Err(Error::Refused(format!("{} has {size} bytes, which is too much", path.display())));
    }
    fs::read_to_string(path).map(Some).map_err(Error::local(path.display()))
}

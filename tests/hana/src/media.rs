//! Installation media: an extracted folder, the SAR archive it comes from, and `SAPCAR`.
//!
//! A SAR archive of the stand-ins is a text of three lines; a changed byte makes it unreadable, as one of SAP's would be.

use crate::files;
use crate::halt::{Ended, Halt};
use crate::root::Root;
use std::fs;
use std::path::Path;

const SAR: &str = "SAR archive of the stand-ins\n";

/// Version and build of a manifest.
pub(crate) fn version(manifest: &Path) -> Result<(String, String), Halt> {
    let text = fs::read_to_string(manifest)
        .map_err(|error| Halt::new(1, format!("{}: {error}", manifest.display())))?;
    let line = text.lines().find_map(|line| line.strip_prefix("fullversion: "));
    let (version, build) = line.and_then(|line| line.split_once(" Build ")).unwrap_or_default();
    let build = build.split('-').next().unwrap_or_default();
    Ok((version.to_string(), build.to_string()))
}

/// The text of a manifest, of media and of an installed system alike.
pub(crate) fn manifest(version: &str, build: &str) -> String {
    let revision = version.split('.').nth(2).unwrap_or("000");
    let pack = crate::hdb::service_pack(version);
    format!(
        "[PRODUCT]\ncompversion-name: HANA\nfullversion: {version} Build {build}-1530\nrev-number: {revision}\n\
         sp-number: {pack:02}0\nplatform: linuxx86_64\n"
    )
}

/// Lays out extracted media below `place`.
pub(crate) fn extract(root: &Root, version: &str, place: &Path) -> Result<(), Halt> {
    let component = place.join("SAP_HANA_DATABASE");
    let build = build(version);
    files::write(root, &component.join("server/manifest"), manifest(version, &build).as_bytes())?;
    root.link(component.join("hdblcm"))
}

/// A build number for a version, always the same.
fn build(version: &str) -> String {
    let digits: u64 =
        version.split('.').filter_map(|part| part.parse::<u64>().ok()).fold(0, |sum, part| sum * 100 + part);
    format!("{}", 1_600_000_000 + digits % 100_000_000)
}

/// Writes a SAR archive.
pub(crate) fn archive(root: &Root, version: &str, place: &Path) -> Result<(), Halt> {
    let body = format!("version={version}\n");
    let sum = crate::database::kept(&body);
    files::write(root, place, format!("{SAR}{body}sum={sum}\n").as_bytes())
}

/// `SAPCAR -R DIR -xvf FILE [-manifest SIGNATURE.SMF]`, and `-tvf`, `-v`.
pub(crate) fn sapcar(root: &Root, arguments: &[String]) -> Ended {
    let option = |names: &[&str]| {
        let place = arguments.iter().position(|argument| names.contains(&argument.as_str()))?;
        arguments.get(place + 1)
    };
    if arguments.is_empty() || arguments.iter().any(|argument| argument == "-v") {
        println!(
            "SAPCAR information:\nkernel release                753\nplatform                      linuxx86_64"
        );
        return Ok(0);
    }
    let Some(file) = option(&["-xvf", "-xf", "-tvf", "-tf"]) else {
        return Err(Halt::new(1, "SAPCAR: a command is missing"));
    };
    let text = fs::read_to_string(root.at(file))
        .map_err(|error| Halt::new(1, format!("SAPCAR: could not open {file}: {error}")))?;
    let content = text.strip_prefix(SAR).and_then(|rest| rest.split_once("sum="));
    let Some((body, _)) = content.filter(|(body, sum)| sum.trim() == crate::database::kept(body)) else {
        return Err(Halt::new(3, format!("SAPCAR: {file}: format error in header")));
    };
    println!("SAPCAR: processing archive {file} (version 2.01)");
    for name in ["SAP_HANA_DATABASE", "SAP_HANA_DATABASE/hdblcm", "SAP_HANA_DATABASE/server/manifest"] {
        println!("x {name}");
    }
    if option(&["-tvf", "-tf"]).is_none() {
        let named = body.trim().trim_start_matches("version=").to_string();
        let version = root.faults().find("media-version", |_| true).unwrap_or(named);
        let place = root.at(option(&["-R"]).map_or(".", String::as_str));
        extract(root, &version, &place)?;
        files::crash_point(root, "sapcar.extracted");
        if let Some(manifest) = option(&["-manifest"]) {
            files::write(root, &place.join(manifest), b"signature of the stand-ins\n")?;
        }
    }
    println!("SAPCAR: 3 file(s) extracted");
    Ok(0)
}

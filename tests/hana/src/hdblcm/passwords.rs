//! The passwords on the standard input of hdblcm: XML, as its template has it.

use crate::halt::Halt;
use std::collections::BTreeMap;

/// Passwords by element: `password` is that of `<sid>adm`.
pub(crate) type Passwords = BTreeMap<String, String>;

/// Reads the XML.
///
/// # Errors
/// Exit 1 for what is not well formed, and for a `***` of the template that was left over.
pub(crate) fn parse(text: &str) -> Result<Passwords, Halt> {
    let wrong = |what: &str| Halt::new(1, format!("Cannot read passwords from standard input: {what}"));
    let mut text = text.trim();
    if let Some(rest) = text.strip_prefix("<?xml") {
        text = rest.split_once("?>").ok_or_else(|| wrong("the declaration does not end"))?.1;
    }
    let text = without_comments(text).ok_or_else(|| wrong("a comment does not end"))?;
    let inner = text.trim().strip_prefix("<Passwords>").and_then(|rest| rest.strip_suffix("</Passwords>"));
    let mut rest = inner.ok_or_else(|| wrong("no element Passwords"))?.trim();
    let mut passwords = Passwords::new();
    while !rest.is_empty() {
        let opened = rest.strip_prefix('<').and_then(|rest| rest.split_once('>'));
        let (name, after) = opened.ok_or_else(|| wrong("an element is not well formed"))?;
        let (password, after) = value(after).ok_or_else(|| wrong(&format!("the value of {name}")))?;
        let closed = after.strip_prefix(&format!("</{name}>"));
        rest = closed.ok_or_else(|| wrong(&format!("{name} does not end")))?.trim_start();
        if password == "***" {
            return Err(wrong(&format!("{name} still holds the placeholder ***")));
        }
        passwords.insert(name.to_string(), password);
    }
    Ok(passwords)
}

fn without_comments(text: &str) -> Option<String> {
    // A comment within a password is part of it: only those between elements are left out.
    let mut kept = String::new();
    let mut rest = text;
    while let Some(place) = rest.find("<!") {
        kept += rest.get(..place)?;
        let from = rest.get(place..)?;
        let (end, comment) = if from.starts_with("<!--") { ("-->", true) } else { ("]]>", false) };
        let length = from.find(end)? + end.len();
        if !comment {
            kept += from.get(..length)?;
        }
        rest = from.get(length..)?;
    }
    Some(kept + rest)
}

/// Text and CDATA sections up to the next element, and what follows.
fn value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        if let Some(section) = rest.strip_prefix("<![CDATA[") {
            let (inner, after) = section.split_once("]]>")?;
            value += inner;
            rest = after;
        } else if rest.starts_with('<') {
            return Some((value, rest));
        } else {
            let (plain, _) = rest.split_once('<')?;
            let plain_text = plain.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
            if plain
                .replace("&lt;", "")
                .replace("&gt;", "")
                .replace("&quot;", "")
                .replace("&amp;", "")
                .contains('&')
            {
                return None;
            }
            value += &plain_text.replace("&amp;", "&");
            rest = rest.get(plain.len()..)?;
        }
    }
}

/// Would hdblcm take the password for a new user? At least 8 characters with an upper, a lower and a digit, and none of
/// `\ ' " ` $`.
pub(crate) fn acceptable(password: &str) -> bool {
    let has = |kind: fn(&char) -> bool| password.chars().any(|letter| kind(&letter));
    password.chars().count() >= 8
        && has(char::is_ascii_uppercase)
        && has(char::is_ascii_lowercase)
        && has(char::is_ascii_digit)
        && !password.contains(['\\', '\'', '"', '`', '$'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_read_as_the_template_writes_them() {
        let text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- a note -->\n<Passwords>\n  <password><![CDATA[a<b]]]]><![CDATA[>c]]></password>\n  <system_user_password>x&amp;y</system_user_password>\n</Passwords>\n";
        let passwords = parse(text).unwrap();
        assert_eq!(passwords["password"], "a<b]]>c");
        assert_eq!(passwords["system_user_password"], "x&y");
    }

    #[test]
    fn what_is_not_well_formed_or_not_filled_in_is_refused() {
        for wrong in [
            "",
            "Secret1x",
            "<Passwords><password>a</Passwords>",
            "<Passwords><password>a&b</password></Passwords>",
            "<Passwords><password><![CDATA[***]]></password></Passwords>",
        ] {
            assert_eq!(parse(wrong).unwrap_err().code, 1, "{wrong}");
        }
    }

    #[test]
    fn a_new_password_needs_upper_lower_and_digit() {
        assert!(acceptable("Secret12#"));
        for wrong in ["Short1a", "nouppercase1", "NOLOWERCASE1", "NoDigitsHere", "With$ign1x", "With\"quote1"]
        {
            assert!(!acceptable(wrong), "{wrong}");
        }
    }
}

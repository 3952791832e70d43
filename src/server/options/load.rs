//! From a file and flags to options.

use super::parse::{Draft, Reader};
use super::{Flags, Options, check, parse};
use conf::{Document, Source};

/// Options that may be served, and what should be said about them.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The options.
    pub options: Options,
    /// Lines for standard error; under `-t` they count as errors.
    pub warnings: Vec<String>,
}

/// Reads the file that the flags name, if any, and puts the flags over it. For the start and for every reload.
///
/// # Errors
/// One line for each mistake, most with `file:line:column`.
pub fn load(flags: &Flags, source: &dyn Source) -> Result<Loaded, Vec<String>> {
    let Some(path) = &flags.config else {
        return finish(Draft::default(), Vec::new(), flags);
    };
    // A file that cannot be read at all has no place to point at.
    let text = source.read(path).map_err(|e| vec![e])?;
    load_document(path, &String::from_utf8_lossy(&text), flags, source)
}

/// The same for text that was read before; `path` names it in errors and is where its includes start from.
///
/// # Errors
/// As [`load`].
pub fn load_text(path: &str, text: &str, flags: &Flags, source: &dyn Source) -> Result<Loaded, Vec<String>> {
    load_document(path, text, flags, source)
}

fn load_document(path: &str, text: &str, flags: &Flags, source: &dyn Source) -> Result<Loaded, Vec<String>> {
    let Document { root, digest, .. } =
        conf::parse_text(path, text, source).map_err(|e| vec![e.to_string()])?;
    let mut reader = Reader::default();
    let mut draft = Draft::default();
    parse::top::read(&mut reader, &root, &mut draft);
    check::places(&mut reader, &root, &draft.options);
    let mut warnings: Vec<String> = reader.warnings.iter().map(ToString::to_string).collect();
    if root.is_empty() {
        warnings.push(format!("{path}: config has no values or is empty"));
    }
    if !reader.errors.is_empty() {
        return Err(warnings.into_iter().chain(reader.errors.iter().map(ToString::to_string)).collect());
    }
    draft.options.config_file = Some(path.to_string());
    draft.options.config_digest = Some(digest);
    finish(draft, warnings, flags)
}

fn finish(mut draft: Draft, warnings: Vec<String>, flags: &Flags) -> Result<Loaded, Vec<String>> {
    flags.apply(&mut draft).map_err(|e| vec![e])?;
    let options = draft.finish();
    check::validate(&options).map_err(|e| vec![e])?;
    Ok(Loaded { options, warnings })
}

/// What these options ask for that parses and is legal, but that this server cannot do yet, one sentence each. The
/// server refuses to start on them; a later change that brings a feature deletes its lines.
pub fn unsupported(options: &Options) -> Vec<String> {
    let mut out = Vec::new();
    if options.log.syslog || options.log.remote_syslog.is_some() {
        out.push("syslog: logging to syslog is not yet supported".to_string());
    }
    if options.prof_port.is_some() {
        out.push("prof_port: profiling is not yet supported".to_string());
    }
    out
}

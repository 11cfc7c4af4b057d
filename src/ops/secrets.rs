//! Passphrases: where they come from, and the keys they open.
//!
//! In this order: what the flags say, the service manager's credentials, the environment, and the
//! terminal. Never the arguments, and never handed to another process.

use super::Error;
use crate::model::name;
use crate::sign::key::{KeyError, Passphrase, SecretKey};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Which of the two keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Signs policies, and vouches for local keys.
    Site,
    /// Signs baselines.
    Local,
}

impl Role {
    /// The word for it in flags and variables.
    pub fn word(self) -> &'static str {
        match self {
            Role::Site => "site",
            Role::Local => "local",
        }
    }

    /// The environment variable with its passphrase.
    pub fn variable(self) -> &'static str {
        match self {
            Role::Site => "FIM_SITE_PASSPHRASE",
            Role::Local => "FIM_LOCAL_PASSPHRASE",
        }
    }
}

/// Asks on the terminal; `None` if there is none.
pub type Prompt = Box<dyn Fn(&str) -> Option<Result<String, String>>>;

/// What the command line says about passphrases.
pub struct Secrets {
    /// `--no-passphrase`: new keys are stored in the clear.
    pub in_the_clear: bool,
    /// `--site-passphrase-file`.
    pub site_file: Option<PathBuf>,
    /// `--local-passphrase-file`.
    pub local_file: Option<PathBuf>,
    /// Asks on the terminal.
    pub prompt: Prompt,
}

/// Largest file with a passphrase.
const FILE_LIMIT: usize = 4096;

impl Secrets {
    /// The passphrase from a file, credential or variable.
    fn stored(&self, role: Role) -> Result<Option<Passphrase>, Error> {
        let file = match role {
            Role::Site => &self.site_file,
            Role::Local => &self.local_file,
        };
        if let Some(path) = file {
            return read(path).map(Some);
        }
        if let Some(dir) = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from) {
            for credential in ["fim-", ""] {
                let path = dir.join(format!("{credential}{}-passphrase", role.word()));
                if super::source::is_there(&path) {
                    return read(&path).map(Some);
                }
            }
        }
        match std::env::var(role.variable()) {
            Ok(text) if !text.is_empty() => Ok(Some(Passphrase::new(text))),
            Ok(_) | Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(Error::Passphrase(format!("{}: is not UTF-8; set another", role.variable())))
            }
        }
    }

    /// The passphrase under which a new key is stored; `None` for in the clear.
    ///
    /// # Errors
    /// `Usage` without a terminal and without a word on how the key is to be kept.
    pub fn for_new(&self, role: Role) -> Result<Option<Passphrase>, Error> {
        if self.in_the_clear {
            return Ok(None);
        }
        if let Some(passphrase) = self.stored(role)? {
            return Ok(Some(passphrase));
        }
        self.ask_new(role, &format!(
            "passphrase of the {} key: no terminal to ask on; give --site-passphrase-file and --local-passphrase-file, \
             set {} and {} or credentials site-passphrase and local-passphrase, or say --no-passphrase to store the keys in the clear",
            role.word(),
            Role::Site.variable(),
            Role::Local.variable()
        ))
    }

    /// The passphrase that replaces another. Credentials and environment hold the old one and are
    /// not asked: a change that stores the old one again would be none.
    ///
    /// # Errors
    /// `Usage` without a terminal and without a word on how the key is to be kept.
    pub fn for_change(&self, role: Role) -> Result<Option<Passphrase>, Error> {
        let file = match role {
            Role::Site => &self.site_file,
            Role::Local => &self.local_file,
        };
        match file {
            _ if self.in_the_clear => Ok(None),
            Some(path) => read(path).map(Some),
            None => self.ask_new(role, &format!(
                "new passphrase of the {} key: no terminal to ask on; give --new-passphrase-file, \
                 or say --no-passphrase to store the key in the clear",
                role.word()
            )),
        }
    }

    /// Asks twice for a new passphrase.
    fn ask_new(&self, role: Role, without_terminal: &str) -> Result<Option<Passphrase>, Error> {
        let ask = |text: String| (self.prompt)(&text).transpose().map_err(Error::Passphrase);
        let word = role.word();
        let ask = |text: String| Ok::<_, Error>(ask(text)?.map(Zeroizing::new));
        let Some(mut first) = ask(format!("Passphrase for the new {word} key: "))? else {
            return Err(Error::Usage(without_terminal.to_owned()));
        };
        if first.is_empty() {
            return Err(Error::Passphrase(format!(
                "passphrase of the {word} key: is empty; give one, or say --no-passphrase"
            )));
        }
        let second = ask(format!("The same passphrase for the {word} key again: "))?;
        if second.as_ref() != Some(&first) {
            return Err(Error::Passphrase(format!(
                "passphrase of the {word} key: the two are not the same; try again"
            )));
        }
        Ok(Some(Passphrase::new(std::mem::take(&mut *first))))
    }

    /// Opens a key, with its passphrase if it has one. Returns the passphrase, too, under which a
    /// successor of the key is to be stored.
    ///
    /// # Errors
    /// `Key` if there is no passphrase, or a wrong one.
    pub fn open(
        &self,
        role: Role,
        object: &str,
        pem: &str,
    ) -> Result<(SecretKey, Option<Passphrase>), Error> {
        let failed = |cause: KeyError| Error::Key { object: object.to_owned(), cause };
        if !SecretKey::is_encrypted(pem).map_err(failed)? {
            return Ok((SecretKey::open(pem, None).map_err(failed)?, None));
        }
        let passphrase = match self.stored(role)? {
            Some(passphrase) => passphrase,
            None => {
                let text = format!("Passphrase of the {} key: ", role.word());
                match (self.prompt)(&text) {
                    Some(Ok(passphrase)) => Passphrase::new(passphrase),
                    Some(Err(cause)) => return Err(Error::Passphrase(cause)),
                    None => {
                        return Err(Error::Passphrase(format!(
                            "{object}: needs a passphrase, and there is no terminal to ask on; set {} or give a file",
                            role.variable()
                        )));
                    }
                }
            }
        };
        let key = SecretKey::open(pem, Some(&passphrase)).map_err(failed)?;
        Ok((key, Some(passphrase)))
    }
}

/// A passphrase from a file: everything but one line end.
fn read(path: &Path) -> Result<Passphrase, Error> {
    let text = crate::policy::files::read_text(path).map(Zeroizing::new).map_err(|cause| {
        Error::Passphrase(format!(
            "{}: {cause}; name a file that holds the passphrase",
            name::show(path)
        ))
    })?;
    let line = text.strip_suffix('\n').unwrap_or(text.as_str());
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.len() > FILE_LIMIT {
        return Err(Error::Passphrase(format!(
            "{}: holds no passphrase of 1 to {FILE_LIMIT} bytes; write one into it",
            name::show(path)
        )));
    }
    Ok(Passphrase::new(line.to_owned()))
}

//! How the hub is reached and where its files are kept: the variables that Python's `huggingface_hub` knows.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::ModelError;

/// Where the hub is, where its files are kept, who asks.
#[derive(Clone, PartialEq, Eq)]
pub struct HubSettings {
    /// The address of another hub than the public one, such as a mirror.
    pub endpoint: Option<String>,
    /// The folder with a folder a model: what Python's `huggingface_hub` calls its cache.
    pub cache: PathBuf,
    /// The file that a token may lie in, for the words of an error.
    pub token_file: PathBuf,
    /// Who asks: needed for private and gated models.
    pub token: Option<String>,
    /// Never touch the network.
    pub offline: bool,
    /// A server that says nothing for so long is taken for gone.
    pub timeout: Duration,
    /// The pause before the second attempt; each further one is twice as long.
    pub pause: Duration,
    /// Certificates that are trusted instead of the usual ones, as PEM.
    pub certificates: Option<PathBuf>,
}

impl HubSettings {
    /// What the environment says. Errors if there is no place for a cache: no home and no variable.
    pub fn from_env() -> Result<Self, ModelError> {
        Self::from_variables(|name| std::env::var_os(name))
    }

    /// The same from any source of variables.
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, ModelError> {
        let given = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| given(name).and_then(|value| value.into_string().ok());
        let home = given("HOME").or_else(|| given("USERPROFILE")).map(PathBuf::from);
        let folder = |name: &str| given(name).map(|path| expanded(PathBuf::from(path), home.as_deref()));
        let under_home = || Some(home.clone()?.join(".cache"));
        let Some(hf_home) = folder("HF_HOME")
            .or_else(|| Some(folder("XDG_CACHE_HOME").or_else(under_home)?.join("huggingface")))
        else {
            return Err(ModelError::Hub {
                id: "HF_HOME".into(),
                message: "there is no home folder to keep downloaded models in; set HF_HOME to a folder"
                    .into(),
            });
        };
        let token_file = folder("HF_TOKEN_PATH").unwrap_or_else(|| hf_home.join("token"));
        let from_file = || std::fs::read_to_string(&token_file).ok();
        let token = text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")).or_else(from_file);
        let yes = |name: &str| {
            text(name)
                .is_some_and(|value| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str()))
        };
        let seconds = text("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|value| value.trim().parse().ok());
        Ok(HubSettings {
            endpoint: text("HF_ENDPOINT").map(|endpoint| endpoint.trim().trim_end_matches('/').to_string()),
            cache: folder("HF_HUB_CACHE")
                .or_else(|| folder("HUGGINGFACE_HUB_CACHE"))
                .unwrap_or_else(|| hf_home.join("hub")),
            token: token.map(|token| token.trim().to_string()).filter(|token| !token.is_empty()),
            token_file,
            offline: yes("HF_HUB_OFFLINE") || yes("TRANSFORMERS_OFFLINE"),
            timeout: Duration::from_secs(seconds.filter(|seconds| *seconds > 0).unwrap_or(10)),
            pause: Duration::from_secs(1),
            certificates: folder("SSL_CERT_FILE"),
        })
    }
}

/// Whoever prints settings must not print the token.
impl fmt::Debug for HubSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubSettings")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

/// A leading `~` is the home folder, as in Python: not every shell has replaced it.
fn expanded(path: PathBuf, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> HubSettings {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name);
        HubSettings::from_variables(|name| find(name).map(|(_, value)| value.into())).unwrap()
    }

    #[test]
    fn the_cache_is_where_python_has_it() {
        let home = ("HOME", "/home/é");
        for (variables, cache) in [
            (&[home][..], "/home/é/.cache/huggingface/hub"),
            (&[home, ("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[home, ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/h")], "/h/hub"),
            (&[home, ("HF_HOME", "~/h")], "/home/é/h/hub"),
            (&[home, ("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/old")], "/old"),
            (&[home, ("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/c")], "/c"),
            (&[home, ("HF_HOME", ""), ("HF_HUB_CACHE", "")], "/home/é/.cache/huggingface/hub"),
        ] {
            assert_eq!(of(variables).cache, Path::new(cache), "{variables:?}");
        }
        let none = HubSettings::from_variables(|_| None).unwrap_err().to_string();
        assert!(none.contains("set HF_HOME"), "{none}");
    }

    #[test]
    fn the_token_is_found_and_never_printed() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        assert_eq!(of(&[("HF_HOME", home)]).token, None);
        std::fs::write(folder.path().join("token"), "from-file\n").unwrap();
        assert_eq!(of(&[("HF_HOME", home)]).token.as_deref(), Some("from-file"));
        let both = of(&[("HF_HOME", home), ("HF_TOKEN", " from-env ")]);
        assert_eq!(both.token.as_deref(), Some("from-env"));
        assert!(!format!("{both:?}").contains("from-env"));
    }

    #[test]
    fn offline_is_a_word_that_means_yes() {
        for (value, offline) in [("1", true), ("TRUE", true), ("yes", true), ("0", false), ("", false)] {
            assert_eq!(of(&[("HOME", "/h"), ("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
        }
    }
}

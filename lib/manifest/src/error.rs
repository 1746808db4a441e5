//! The one error type of this library.

use alloc::string::String;
use core::fmt;

use crate::json;

/// Which of the manifest's layers an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// The manifest partition of the disk.
    Disk,
    /// The merge patch handed over through `fw_cfg`.
    FwCfg,
    /// The kernel command line.
    CommandLine,
    /// The outcome of merging the layers.
    Merged,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layer::Disk => "manifest on the disk",
            Layer::FwCfg => "manifest from fw_cfg",
            Layer::CommandLine => "kernel command line",
            Layer::Merged => "merged manifest",
        })
    }
}

/// Why a manifest could not be read, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The layer at fault, where it is known.
    pub layer: Option<Layer>,
    /// The key, as `en1.mtu` or `arguments[2]`; empty for an error of the whole text.
    pub path: String,
    /// Line (from 1) and column (from 1, in bytes) in the layer's text, where it is known.
    pub position: Option<(usize, usize)>,
    /// What is wrong.
    pub message: String,
}

impl Error {
    /// An error about the value at `path`.
    pub(crate) fn at(path: impl Into<String>, message: impl Into<String>) -> Self {
        Error {
            layer: None,
            path: path.into(),
            position: None,
            message: message.into(),
        }
    }

    /// Says which layer the error is about, unless that is known already.
    pub(crate) fn in_layer(mut self, layer: Layer) -> Self {
        self.layer.get_or_insert(layer);
        self
    }

    /// Finds the line and column of the error's key in `text`.
    pub(crate) fn locate(mut self, text: &[u8]) -> Self {
        if self.position.is_none() {
            self.position = json::locate(text, &self.path, false);
        }
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if let Some(layer) = self.layer {
            write!(f, "{layer}")?;
            separator = ", ";
        }
        if let Some((line, column)) = self.position {
            write!(f, "{separator}line {line}, column {column}")?;
            separator = ", ";
        }
        if !self.path.is_empty() {
            write!(f, "{separator}key `{}`", self.path)?;
            separator = ": ";
        } else if !separator.is_empty() {
            separator = ": ";
        }
        write!(f, "{separator}{}", self.message)
    }
}

impl core::error::Error for Error {}

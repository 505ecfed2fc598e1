//! From a file name to a disk: what format it has, what it stands on, who may use it.
//!
//! All files of a chain are opened and checked here, from the top down, before `imago` sees any of them; it is told to open
//! nothing by itself.

use crate::error::one_line;
use crate::file::ImageFile;
use crate::image::Layer;
use crate::mapped::{Access, Mapped};
use crate::overlay::Overlay;
use crate::qcow2::Header;
use crate::raw_image::RawImage;
use crate::{Disk, Error, Image, Preallocation, SECTOR, printable};
use imago::file::File as Storage;
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{FormatAccess, StorageOpenOptions};
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files in a chain, at most. Each costs some megabytes of tables.
const MAX_CHAIN: usize = 256;

/// An image's format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    Raw,
    Qcow2,
}

/// `cache=`: what of the host's memory stands between the guest and its disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Cache {
    /// The host's page cache; flushed when the guest asks.
    #[default]
    Writeback,
    /// Past the page cache (`O_DIRECT`); flushed when the guest asks.
    None,
    /// The page cache; flushed after each write.
    Writethrough,
    /// Past the page cache, flushed after each write.
    Directsync,
    /// The page cache; never flushed. For disks that can be made again.
    Unsafe,
}

/// `discard=`: whether the host's space is given back when the guest needs it no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Discard {
    #[default]
    Ignore,
    Unmap,
}

/// `locking=`: whether others are kept out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Locking {
    /// Where the file system can.
    #[default]
    Auto,
    On,
    Off,
}

/// One table per option: its values and their names.
macro_rules! names {
    ($type:ident, $what:literal, $($value:ident = $name:literal),+) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($type::$value => $name),+ })
            }
        }
        impl std::str::FromStr for $type {
            type Err = Error;
            fn from_str(name: &str) -> Result<$type, Error> {
                match name {
                    $($name => Ok($type::$value),)+
                    _ => {
                        let known = [$($name),+].join(", ");
                        let name = printable(name);
                        Err(Error::Option(format!(concat!("unknown ", $what, " '{}': known are {}"), name, known)))
                    }
                }
            }
        }
    };
}

names!(Format, "image format", Raw = "raw", Qcow2 = "qcow2");
names!(
    Cache,
    "cache mode",
    Writeback = "writeback",
    None = "none",
    Writethrough = "writethrough",
    Directsync = "directsync",
    Unsafe = "unsafe"
);
names!(Discard, "discard mode", Ignore = "ignore", Unmap = "unmap");
names!(Locking, "locking mode", Auto = "auto", On = "on", Off = "off");
names!(
    Preallocation,
    "preallocation",
    Off = "off",
    Metadata = "metadata",
    Falloc = "falloc",
    Full = "full"
);

impl Cache {
    pub(crate) fn direct(self) -> bool {
        matches!(self, Cache::None | Cache::Directsync)
    }
    pub(crate) fn writethrough(self) -> bool {
        matches!(self, Cache::Writethrough | Cache::Directsync)
    }
}

/// How to open an image.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    pub path: PathBuf,
    /// Found out when absent. A raw image's sector 0 is then protected.
    pub format: Option<Format>,
    pub read_only: bool,
    /// What is written is temporary; the file is opened for reading only.
    pub snapshot: bool,
    pub cache: Cache,
    pub discard: Discard,
    /// Zeros that are written become `write_zeroes`.
    pub detect_zeroes: bool,
    pub locking: Locking,
}

impl OpenOptions {
    pub fn new(path: impl Into<PathBuf>) -> OpenOptions {
        OpenOptions { path: path.into(), ..OpenOptions::default() }
    }
}

/// Opens an image as a disk for a machine.
///
/// # Errors
/// Missing, unreadable or wrong files anywhere in the chain; images in use; nothing has been written then.
pub fn open(options: &OpenOptions) -> Result<Arc<dyn Disk>, Error> {
    if !options.snapshot {
        return Ok(Arc::new(open_image(options)?));
    }
    let base = open_image(&OpenOptions { read_only: true, ..options.clone() })?;
    Ok(Arc::new(Overlay::new(base)?))
}

/// Headers by which formats are known: offset, bytes, name.
const MAGIC: &[(usize, &[u8], &str)] = &[
    (0, b"QFI\xfb", "qcow2"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"QED\0", "qed"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vpc"),
    (0x40, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"LUKS\xba\xbe", "luks"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
];

/// The format whose header these bytes are, when they are more than a raw image's.
pub(crate) fn foreign_format(head: &[u8]) -> Option<&'static str> {
    let has = |&&(at, magic, _): &&(usize, &[u8], &str)| {
        head.get(at..).is_some_and(|rest| rest.starts_with(magic))
    };
    MAGIC.iter().find(has).map(|row| row.2)
}

pub(crate) fn probe_file(file: &ImageFile) -> Result<Format, Error> {
    match foreign_format(&file.head(SECTOR as usize)?) {
        None => Ok(Format::Raw),
        Some("qcow2") => Ok(Format::Qcow2),
        Some(other) => {
            let what = format!(
                "is a {other} image, a format that is not supported; convert it with `qemu-img convert -O qcow2`, \
                 or say format=raw if it is not"
            );
            Err(Error::Unsupported { path: file.path.clone(), what })
        }
    }
}

/// The format of a file, from its first bytes. It is not locked.
///
/// # Errors
/// As for [`open_image`].
pub fn probe(path: &Path) -> Result<Format, Error> {
    probe_file(&ImageFile::open(path, false, Cache::Writeback, Locking::Off)?)
}

/// Where an image's backing file is: its name as the header has it is relative to the image.
///
/// # Errors
/// Names that are not of files (`nbd://...`, `json:...`).
pub fn backing_path(image: &Path, name: &str) -> Result<PathBuf, Error> {
    let file = name.strip_prefix("file:").unwrap_or(name);
    let before_colon = file.split_once(':').map_or("", |(scheme, _)| scheme);
    let scheme = !before_colon.is_empty() && !before_colon.contains('/');
    if scheme || file.is_empty() || file.contains('\0') {
        let what = format!("has a backing file that is not a file's name: '{}'", printable(name));
        return Err(Error::Unsupported { path: image.into(), what });
    }
    Ok(image.parent().unwrap_or(Path::new("")).join(file))
}

/// One file of a chain, its header checked.
struct Link {
    file: ImageFile,
    header: Option<Header>,
}

fn open_link(
    path: &Path,
    format: Option<Format>,
    write: bool,
    options: &OpenOptions,
) -> Result<(Link, Format), Error> {
    let file = ImageFile::open(path, write, options.cache, options.locking)?;
    let format = format.map_or_else(|| probe_file(&file), Ok)?;
    let header = match format {
        Format::Raw => None,
        Format::Qcow2 => Some(Header::read_usable(&file, write)?),
    };
    Ok((Link { file, header }, format))
}

/// All files from the top down.
fn open_chain(options: &OpenOptions, write: bool) -> Result<(Vec<Link>, Format), Error> {
    let (top, format) = open_link(&options.path, options.format, write, options)?;
    let mut links = vec![top];
    let mut seen = Vec::new();
    while let Some(last) = links.last() {
        let metadata = last.file.file.metadata().map_err(Error::host("open", &last.file.path))?;
        let identity = (metadata.dev(), metadata.ino());
        let path = last.file.path.clone();
        if seen.contains(&identity) || seen.len() >= MAX_CHAIN {
            let what = match seen.contains(&identity) {
                true => "is its own backing file, through its chain".to_string(),
                false => format!("stands on a chain of more than {MAX_CHAIN} files"),
            };
            return Err(Error::Unsupported { path: options.path.clone(), what });
        }
        seen.push(identity);
        let Some((name, format)) =
            last.header.as_ref().and_then(|h| h.backing.as_ref().map(|b| (b, &h.backing_format)))
        else {
            break;
        };
        let below = |cause| Error::Backing { path: path.clone(), cause: Box::new(cause) };
        // QEMU knows the format "file" from old times.
        let format = format.as_deref().map(|f| if f == "file" { "raw" } else { f });
        let format = format.map(str::parse).transpose().map_err(below)?;
        let backing = backing_path(&path, name).map_err(below)?;
        let (link, _) = open_link(&backing, format, false, options).map_err(below)?;
        links.push(link);
    }
    Ok((links, format))
}

fn storage(file: ImageFile, write: bool) -> Result<Storage, Error> {
    let options = StorageOpenOptions::new().filename(&file.path).write(write).direct(file.direct);
    Storage::from_open_file(file.file, options).map_err(Error::host("open", file.path))
}

/// The link on top of what is below it.
fn mapped(link: Link, write: bool, below: Option<Access>) -> Result<Access, Error> {
    let path = link.file.path.clone();
    let header = link.header;
    let storage = storage(link.file, write)?;
    let failed = |e| Error::host("open", &path)(one_line(e));
    if header.is_none() {
        return Ok(FormatAccess::new(Raw::open_image(storage, write).map_err(failed)?));
    }
    let mut image = Qcow2::<Storage>::open_image(storage, write).map_err(failed)?;
    image.set_data_file(None);
    image.set_backing(below);
    Ok(FormatAccess::new(image))
}

/// Opens an image; `snapshot` is not looked at.
///
/// # Errors
/// As [`open`].
pub fn open_image(options: &OpenOptions) -> Result<Image, Error> {
    let write = !options.read_only;
    let (mut links, format) = open_chain(options, write)?;
    let locks = links.iter_mut().filter_map(|l| l.file.lock.take()).collect();
    let top = links.remove(0);
    let backing = links.iter().map(|l| l.file.path.clone()).collect();
    let path = options.path.clone();
    let file = top.file.file.try_clone().map_err(Error::host("open", &path))?;
    let layer = if format == Format::Raw && !top.file.direct {
        Layer::Raw(RawImage::new(top.file)?)
    } else {
        if format == Format::Raw && !top.file.len.is_multiple_of(SECTOR) {
            let what = "is not a whole number of sectors long, which cache=none needs".into();
            return Err(Error::Unsupported { path, what });
        }
        let mut below = None;
        while let Some(link) = links.pop() {
            below = Some(mapped(link, false, below)?);
        }
        let cluster = top.header.as_ref().map_or(1, Header::cluster_size);
        Layer::Mapped(Mapped::new(mapped(top, write, below)?, cluster))
    };
    let len = match &layer {
        Layer::Raw(raw) => raw.len(),
        Layer::Mapped(mapped) => mapped.size().next_multiple_of(SECTOR),
    };
    let guessed_raw = write && format == Format::Raw && options.format.is_none();
    if guessed_raw {
        tracing::warn!(
            "the format of '{}' was not given and it looks raw: its sector 0 may not become another format's header; \
             format=raw lifts that",
            printable(&path)
        );
    }
    Ok(Image {
        layer,
        file,
        path,
        format,
        len,
        read_only: options.read_only,
        cache: options.cache,
        discard: options.discard,
        detect_zeroes: options.detect_zeroes,
        guessed_raw,
        backing,
        lost: false.into(),
        _locks: locks,
    })
}

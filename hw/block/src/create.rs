//! New images, and other sizes for old ones.

use crate::error::one_line;
use crate::file::ImageFile;
use crate::image::Layer;
use crate::{Error, Format, Locking, OpenOptions, SECTOR, backing_path, open_image};
use imago::file::File as Storage;
use imago::format::PreallocateMode;
use imago::qcow2::Qcow2;
use imago::{FormatCreateBuilder, StorageOpenOptions};
use rustix::fs::{FallocateFlags, fallocate};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What is reserved when an image is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Preallocation {
    #[default]
    Off,
    /// The format's tables.
    Metadata,
    /// The tables, and space on the host.
    Falloc,
    /// The same, by writing zeros.
    Full,
}

/// A new image.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    pub path: PathBuf,
    pub format: Format,
    /// Bytes; the backing file's size when absent.
    pub size: Option<u64>,
    /// Name as it goes into the header, and the format of what it names.
    pub backing: Option<(String, Format)>,
    /// Bytes, a power of two between 512 and 2 MiB.
    pub cluster_size: usize,
    pub refcount_bits: usize,
    pub preallocation: Preallocation,
}

impl CreateOptions {
    pub fn new(path: impl Into<PathBuf>, format: Format, size: Option<u64>) -> CreateOptions {
        CreateOptions {
            path: path.into(),
            format,
            size,
            backing: None,
            cluster_size: 65536,
            refcount_bits: 16,
            preallocation: Preallocation::Off,
        }
    }
}

/// Makes an image and returns its size in bytes. A file that is there already is replaced, unless it is in use; after an
/// error, a file that was not there before is not there.
///
/// # Errors
/// Options that make no sense, a backing file that cannot be opened, and what the host reports.
pub fn create(options: &CreateOptions) -> Result<u64, Error> {
    let wrong = |what: String| Err(Error::Option(what));
    let raw = options.format == Format::Raw;
    if raw && options.backing.is_some() {
        return wrong("a raw image cannot have a backing file".into());
    }
    if raw && options.preallocation == Preallocation::Metadata {
        return wrong("a raw image has no metadata to preallocate".into());
    }
    let cluster = options.cluster_size;
    if !cluster.is_power_of_two() || !(512..=2 << 20).contains(&cluster) {
        return wrong("cluster_size must be a power of two between 512 and 2M".into());
    }
    let bits = options.refcount_bits;
    if !bits.is_power_of_two() || bits > 64 {
        return wrong("refcount_bits must be a power of two between 1 and 64".into());
    }
    if options.backing.is_some() && options.preallocation != Preallocation::Off {
        return wrong("preallocation with a backing file is not supported".into());
    }
    let mut below = None;
    if let Some((name, format)) = &options.backing {
        let path = backing_path(&options.path, name)?;
        let image =
            OpenOptions { format: Some(*format), read_only: true, ..OpenOptions::new(path) };
        let image = open_image(&image).map_err(|cause| Error::Backing {
            path: options.path.clone(),
            cause: Box::new(cause),
        })?;
        below = Some(image);
    }
    let Some(size) = options.size.or(below.as_ref().map(crate::Disk::len)) else {
        return wrong("a size is needed".into());
    };
    let Some(size) = whole_sectors(size).filter(|s| raw || *s <= reach(cluster as u64)) else {
        return wrong("the image would be too large; larger clusters may help".into());
    };
    let existed = options.path.exists();
    let made = write_new(options, size);
    if made.is_err() && !existed {
        let _ = std::fs::remove_file(&options.path);
    }
    made.map(|()| size)
}

/// A size rounded up to sectors. `None`: no file can be that large.
fn whole_sectors(size: u64) -> Option<u64> {
    size.checked_next_multiple_of(SECTOR).filter(|s| i64::try_from(*s).is_ok())
}

/// Bytes of the largest qcow2 image: its L1 table must stay below 32 MiB (4 Mi entries of a whole L2 table each).
fn reach(cluster: u64) -> u64 {
    (cluster / 8).saturating_mul(cluster).saturating_mul(4 << 20)
}

fn write_new(options: &CreateOptions, size: u64) -> Result<(), Error> {
    let path = &options.path;
    let failed = |e| Error::host("create", path)(one_line(e));
    // A pipe would wait for its reader.
    if path.exists() {
        drop(ImageFile::open(path, true, crate::Cache::Writeback, Locking::Auto)?);
    }
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
    let file = file.map_err(failed)?;
    let image = ImageFile::from_file(file, path, true, false, Locking::Auto)?;
    if image.device {
        if size > image.len {
            let what = format!("is a device of {} bytes: too small", image.len);
            return Err(Error::Unsupported { path: path.clone(), what });
        }
    } else {
        image.file.set_len(0).map_err(failed)?;
    }
    let keep = image.file.try_clone().map_err(failed)?;
    if options.format == Format::Raw {
        if !image.device {
            keep.set_len(size).map_err(failed)?;
            reserve(&keep, 0, size, options.preallocation).map_err(failed)?;
        }
        return keep.sync_data().map_err(failed);
    }
    let storage = StorageOpenOptions::new().filename(path).write(true);
    let storage = Storage::from_open_file(image.file, storage).map_err(failed)?;
    let mut builder = Qcow2::<Storage>::create_builder(storage)
        .size(size)
        .cluster_size(options.cluster_size)
        .refcount_width(options.refcount_bits)
        .preallocate(match options.preallocation {
            Preallocation::Off => PreallocateMode::None,
            Preallocation::Metadata => PreallocateMode::FormatAllocate,
            Preallocation::Falloc => PreallocateMode::FullAllocate,
            Preallocation::Full => PreallocateMode::WriteData,
        });
    if let Some((name, format)) = &options.backing {
        builder = builder.backing(name.clone(), format.to_string());
    }
    builder.create().map_err(failed)?;
    keep.sync_data().map_err(failed)
}

/// Space for a part of a raw file.
fn reserve(file: &File, from: u64, to: u64, how: Preallocation) -> io::Result<()> {
    match how {
        Preallocation::Falloc if from < to => {
            Ok(fallocate(file, FallocateFlags::empty(), from, to - from)?)
        }
        Preallocation::Full => {
            let zeros = vec![0; 1 << 20];
            (from..to).step_by(zeros.len()).try_for_each(|at| {
                let n = (to - at).min(zeros.len() as u64) as usize;
                file.write_all_at(&zeros[..n], at)
            })
        }
        _ => Ok(()),
    }
}

/// Gives an image another size, in bytes, rounded up to sectors. What is beyond a smaller one is lost.
///
/// # Errors
/// As [`open_image`]; devices; images with snapshots.
pub fn resize(options: &OpenOptions, size: u64, how: Preallocation) -> Result<(), Error> {
    let path: &Path = &options.path;
    let size =
        whole_sectors(size).ok_or_else(|| Error::Option("the image would be too large".into()))?;
    let failed = |e| Error::host("resize", path)(one_line(e));
    let file = ImageFile::open(path, true, options.cache, Locking::Off)?;
    let refuse = |what: &str| Err(Error::Unsupported { path: path.into(), what: what.into() });
    if file.device {
        return refuse("is a device, whose size is fixed");
    }
    let image = open_image(options)?;
    let old = crate::Disk::len(&image);
    let keep = image.file.try_clone().map_err(failed)?;
    match image.layer {
        Layer::Raw(_) => {
            keep.set_len(size).map_err(failed)?;
            reserve(&keep, old, size, how).map_err(failed)?;
        }
        Layer::Mapped(mapped) => {
            let header = crate::qcow2::Header::read(&file)?;
            if header.snapshots != 0 && size < old {
                return refuse("has snapshots and cannot be made smaller");
            }
            if how != Preallocation::Off {
                return refuse("can only be resized with preallocation=off");
            }
            let cluster = header.cluster_size();
            if size > reach(cluster) {
                return refuse("cannot become that large: its clusters are too small");
            }
            let mut access = mapped.into_inner();
            access.resize(size, PreallocateMode::None).map_err(failed)?;
            access.flush().map_err(failed)?;
        }
    }
    keep.sync_data().map_err(failed)
}

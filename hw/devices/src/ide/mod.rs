//! IDE: ATA disks and ATAPI CD-ROMs behind the PIIX3's two channels with bus-master DMA.
//!
//! Sources: ATA/ATAPI-6 (T13 1410D) for registers and protocols, MMC-5 and SFF-8020i for the CD-ROM, the PIIX3
//! datasheet (Intel 290550) and "Programming Interface for Bus Master IDE Controller" 1.0 for the controller.
//!
//! Commands run within the access that starts them. What ends one is apart from what starts it ([`drive::Drive`]'s
//! `complete`, `fail`, and the data phases), so that a worker may end it later.
//!
//! Not modelled: transfer timing, queued commands, the security and host protected area feature sets (security is
//! frozen), removable media of ATA disks, audio and writing of CDs.

mod ata;
mod atapi;
mod cd_data;
mod drive;
mod identify;
mod piix3_ide;

pub use atapi::Tray;
pub use drive::{Attachment, DriveKind};
pub use piix3_ide::Piix3Ide;

//! Images and findings in words and as JSON, in the form that scripts know from `qemu-img`.

use serde_json::{Value, json};
use std::path::Path;
use tulk_block::qcow2::{Report, Snapshot};
use tulk_block::{Info, printable};

/// Three digits and a unit: `1.5 GiB`.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 {
        value /= 1024.0;
        unit += 1;
    }
    let digits = match value {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text} {}", ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"][unit])
}

/// Year, month, day and time of day, UTC, of seconds since 1970.
fn date(seconds: u32) -> String {
    let time = jiff::Timestamp::from_second(seconds.into()).expect("it is before the year 2107");
    time.strftime("%F %T").to_string()
}

pub fn snapshots(list: &[Snapshot]) -> String {
    let mut text = "Snapshot list:\nID        TAG               VM SIZE                DATE     VM CLOCK     ICOUNT\n".to_string();
    for s in list {
        let ms = s.vm_clock / 1_000_000;
        let clock = format!(
            "{:02}:{:02}:{:02}.{:03}",
            ms / 3_600_000,
            ms / 60_000 % 60,
            ms / 1000 % 60,
            ms % 1000
        );
        let icount = s.icount.map(|n| n.to_string()).unwrap_or_default();
        text += &format!(
            "{:<10}{:<15}{:>10} {:>19} {:>12} {:>10}\n",
            printable(&s.id),
            printable(&s.name),
            size(s.vm_state_size),
            date(s.date.0),
            clock,
            icount
        );
    }
    text
}

/// Lines for the user, images separated by an empty one.
pub fn human(chain: &[Info]) -> String {
    chain.iter().map(one).collect::<Vec<_>>().join("\n")
}

fn one(image: &Info) -> String {
    let mut text = format!(
        "image: {}\nfile format: {}\nvirtual size: {} ({} bytes)\ndisk size: {}\n",
        printable(&image.path),
        image.format,
        size(image.virtual_size),
        image.virtual_size,
        size(image.disk_size)
    );
    let Some(header) = &image.header else { return text };
    if header.encryption != 0 {
        text += "encrypted: yes\n";
    }
    text += &format!("cluster_size: {}\n", header.cluster_size());
    if header.dirty() {
        text += "cleanly shut down: no\n";
    }
    if let Some(name) = &header.backing {
        text += &format!("backing file: {}", printable(name));
        match image.backing() {
            Ok(Some(path)) if path.as_os_str() != name.as_str() => {
                text += &format!(" (actual path: {})\n", printable(path));
            }
            _ => text += "\n",
        }
    }
    if let Some(format) = &header.backing_format {
        text += &format!("backing file format: {}\n", printable(format));
    }
    if !image.snapshots.is_empty() {
        text += &snapshots(&image.snapshots);
    }
    text += "Format specific information:\n";
    for (name, value) in specific(image) {
        let value = value.as_str().map_or_else(|| value.to_string(), String::from);
        text += &format!("    {}: {value}\n", name.replace('-', " "));
    }
    text
}

/// Properties that only qcow2 has, in the order of printing.
fn specific(image: &Info) -> Vec<(&'static str, Value)> {
    let Some(header) = &image.header else { return Vec::new() };
    let mut list = vec![
        ("compat", json!(if header.version == 2 { "0.10" } else { "1.1" })),
        ("compression-type", json!(if header.compression == 0 { "zlib" } else { "zstd" })),
    ];
    if header.version == 3 {
        list.push(("lazy-refcounts", json!(header.lazy_refcounts())));
    }
    list.push(("refcount-bits", json!(1 << header.refcount_order)));
    if header.version == 3 {
        list.push(("corrupt", json!(header.corrupt())));
        list.push(("extended-l2", json!(header.extended_l2())));
    }
    list
}

pub fn json(image: &Info) -> Value {
    let mut value = json!({
        "filename": image.path.to_string_lossy(),
        "format": image.format.to_string(),
        "virtual-size": image.virtual_size,
        "actual-size": image.disk_size,
        "dirty-flag": image.header.as_ref().is_some_and(|h| h.dirty()),
    });
    if let Some(header) = &image.header {
        value["cluster-size"] = json!(header.cluster_size());
        let data: serde_json::Map<_, _> =
            specific(image).into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        value["format-specific"] = json!({ "type": "qcow2", "data": data });
        if header.encryption != 0 {
            value["encrypted"] = json!(true);
        }
        if let Some(name) = &header.backing {
            value["backing-filename"] = json!(name);
            if let Ok(Some(path)) = image.backing() {
                value["full-backing-filename"] = json!(path.to_string_lossy());
            }
        }
        if let Some(format) = &header.backing_format {
            value["backing-filename-format"] = json!(format);
        }
    }
    if !image.snapshots.is_empty() {
        let list = image.snapshots.iter().map(|s| {
            json!({
                "id": s.id,
                "name": s.name,
                "vm-state-size": s.vm_state_size,
                "date-sec": s.date.0,
                "date-nsec": s.date.1,
                "vm-clock-sec": s.vm_clock / 1_000_000_000,
                "vm-clock-nsec": s.vm_clock % 1_000_000_000,
            })
        });
        value["snapshots"] = list.collect();
    }
    value
}

pub fn check_json(path: &Path, report: &Report) -> Value {
    let mut value = json!({
        "filename": path.to_string_lossy(),
        "format": "qcow2",
        "check-errors": report.check_errors,
        "image-end-offset": report.image_end,
        "total-clusters": report.total_clusters,
    });
    for (name, number) in [
        ("corruptions", report.corruptions),
        ("leaks", report.leaks),
        ("allocated-clusters", report.allocated_clusters),
        ("fragmented-clusters", report.fragmented_clusters),
        ("compressed-clusters", report.compressed_clusters),
    ] {
        if number != 0 {
            value[name] = json!(number);
        }
    }
    value
}

pub fn check_human(report: &Report) -> String {
    let mut text = String::new();
    if report.corruptions + report.leaks + report.check_errors == 0 {
        text += "No errors were found on the image.\n";
    }
    if report.corruptions != 0 {
        text += &format!(
            "\n{} errors were found on the image.\nData may be corrupted, or further writes to the image may corrupt it.\n",
            report.corruptions
        );
    }
    if report.leaks != 0 {
        text += &format!(
            "\n{} leaked clusters were found on the image.\nThis means waste of disk space, but no harm to data.\n",
            report.leaks
        );
    }
    if report.check_errors != 0 {
        text +=
            &format!("\n{} internal errors have occurred during the check.\n", report.check_errors);
    }
    let (total, allocated) = (report.total_clusters, report.allocated_clusters);
    if allocated != 0 {
        let percent = |part: u64, whole: u64| part as f64 * 100.0 / whole.max(1) as f64;
        text += &format!(
            "{allocated}/{total} = {:.2}% allocated, {:.2}% fragmented, {:.2}% compressed clusters\n",
            percent(allocated, total),
            percent(report.fragmented_clusters, allocated),
            percent(report.compressed_clusters, allocated)
        );
    }
    text + &format!("Image end offset: {}\n", report.image_end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "0.98 KiB"),
            (200_704, "196 KiB"),
            (1 << 30, "1 GiB"),
            (3 << 29, "1.5 GiB"),
            (u64::MAX, "16 EiB"),
        ];
        for (bytes, want) in cases {
            assert_eq!(size(bytes), want);
        }
    }

    #[test]
    fn dates() {
        assert_eq!(date(0), "1970-01-01 00:00:00");
        assert_eq!(date(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(date(1_700_000_000), "2023-11-14 22:13:20");
    }
}

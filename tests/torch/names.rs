//! docs/names.md lists every name of torch.nn and says which are here: the page follows from the sources.
//!
//! `NEURARCH_WRITE=1 cargo test --test torch names::` writes it anew.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

const PAGE: &str = "docs/names.md";

/// Names that are here under another one, or not at all for a reason.
const NOTES: &[(&str, &str, &str)] = &[
    ("torch.nn", "Buffer", "`Declare::buffer`, `register_buffer`"),
    ("torch.nn", "Container", "not offered: deprecated in torch"),
    ("torch.nn", "DataParallel", "not needed: a population runs in parallel by itself"),
    (
        "torch.nn",
        "LinearCrossEntropyOptions",
        "not offered: about memory alone, it changes no result",
    ),
    ("torch.nn", "RNNBase", "not offered: a base class"),
    ("torch.nn", "RNNCellBase", "not offered: a base class"),
    ("torch.nn", "UninitializedBuffer", "`Declare::uninitialized`"),
    ("torch.nn", "UninitializedParameter", "`Declare::uninitialized`"),
    ("torch.amp", "custom_bwd", "not needed: a gradient has the type of its value"),
    ("torch.amp", "custom_fwd", "`Var::to` of the inputs of an op of your own"),
    (
        "torch.nn.functional",
        "scaled_addmm",
        "not offered: its matrices are of float8 or float4, which are not here, and torch has it for CUDA alone",
    ),
    (
        "torch.nn.functional",
        "scaled_grouped_mm",
        "not offered: its matrices are of float8 or float4, which are not here, and torch has it for CUDA alone",
    ),
    (
        "torch.nn.functional",
        "scaled_mm",
        "not offered: its matrices are of float8 or float4, which are not here",
    ),
    ("torch.nn.functional", "upsample", "not offered: deprecated in torch, see `interpolate`"),
    ("torch.nn.functional", "upsample_bilinear", "not offered: deprecated in torch"),
    ("torch.nn.functional", "upsample_nearest", "not offered: deprecated in torch"),
    ("torch.nn.functional", "logsigmoid", "`log_sigmoid`"),
    ("torch.nn.functional", "native_channel_shuffle", "not offered: see `channel_shuffle`"),
    ("torch.nn.utils", "clip_grad_norm", "not offered: deprecated in torch"),
    (
        "torch.nn.utils.rnn",
        "pack_padded_sequence",
        "`PackedSequence`, whose fields are its arguments",
    ),
    ("torch.optim.swa_utils", "get_ema_multi_avg_fn", "`get_ema_avg_fn`: it is for all parameters"),
    ("torch.optim.swa_utils", "get_swa_multi_avg_fn", "`get_swa_avg_fn`: it is for all parameters"),
    ("torch.nn.utils", "skip_init", "`systems::spawn::spawn_population`, which draws no numbers"),
    ("torch.nn.utils", "convert_conv2d_weight_memory_format", "not offered: there is one format"),
    ("torch.nn.utils", "convert_conv3d_weight_memory_format", "not offered: there is one format"),
];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The Rust files below a folder, as one text.
fn all_below(folder: &str) -> String {
    let mut text = String::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text += &fs::read_to_string(path).unwrap();
        }
    }
    text
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}

/// What a module offers to others: the words of its `pub use`, and of its `pub fn`, `pub struct`, `pub trait`.
fn offered(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for list in text.split("pub use ").skip(1) {
        names.extend(words(list.split(';').next().unwrap()).map(str::to_owned));
    }
    for start in ["pub fn ", "pub struct ", "pub enum ", "pub trait ", "    fn "] {
        let after = text.split(start).skip(1);
        names.extend(after.filter_map(|rest| words(rest).next()).map(str::to_owned));
    }
    names
}

/// Where the names of a section are looked for.
fn sources(section: &str) -> BTreeSet<String> {
    let files: &[&str] = match section {
        "torch.nn" => &["components/src/layers/mod.rs", "components/src/losses/mod.rs"],
        "torch.optim" => &["components/src/optimizer/mod.rs"],
        "torch.optim.lr_scheduler" => &["components/src/scheduler/mod.rs"],
        "torch.nn.init" => &["systems/src/init/mod.rs"],
        "torch.nn.functional" => return formulas(),
        "torch.nn.utils.rnn" => return offered(&all_below("kernels/src")),
        _ => return offered(&(all_below("systems/src") + &all_below("engine/src"))),
    };
    let mut names = offered(&files.iter().map(|file| read(file)).collect::<String>());
    if section == "torch.nn" {
        names.insert("Module".into());
    }
    names
}

/// Methods of `Var`, plain and written by the macros of elementwise ops.
fn formulas() -> BTreeSet<String> {
    let text = all_below("kernels/src/ops");
    let mut names = offered(&text);
    for list in text.split("!(\n").skip(1) {
        names.extend(words(list.split("\n);").next().unwrap()).map(str::to_owned));
    }
    names
}

fn page() -> String {
    let golden = read("tests/golden/names.txt");
    let mut page = String::new();
    let version = golden.lines().next().unwrap();
    let count = |text: &str, word: &str| text.lines().filter(|line| line.ends_with(word)).count();
    for section in golden.split("\n[").skip(1) {
        let (title, names) = section.split_once("]\n").unwrap();
        let here = sources(title);
        let mut table = String::new();
        for name in names.lines().filter(|name| !name.is_empty()) {
            let note = NOTES.iter().find(|(of, known, _)| *of == title && *known == name);
            let state = match note {
                Some((_, _, note)) => (*note).to_owned(),
                None if here.contains(name) => "yes".to_owned(),
                None => "not yet".to_owned(),
            };
            writeln!(table, "| `{name}` | {state} |").unwrap();
        }
        let (yes, not_yet) = (count(&table, "| yes |"), count(&table, "| not yet |"));
        write!(page, "\n## {title}\n\n{yes} are here, {not_yet} not yet.\n\n").unwrap();
        write!(page, "| name | here |\n|---|---|\n{table}").unwrap();
    }
    format!(
        "# Every name of torch.nn, and its state here\n\nThe names are those of {version}, written by \
         `tests/golden/names.py`; `tests/torch/names.rs` looks\neach up in the sources and fails when this page is \
         out of date. `NEURARCH_WRITE=1 cargo test --test torch names::`\nwrites it anew. How a name is used and where \
         it differs from torch's: [for those who know torch](torch.md).\nFunctions of `torch.nn.functional` are \
         methods of `Var`.\n{page}"
    )
}

#[test]
fn the_page_of_names_is_that_of_the_sources() {
    let page = page();
    if std::env::var_os("NEURARCH_WRITE").is_some() {
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE), &page).unwrap();
    }
    assert!(
        page == read(PAGE),
        "{PAGE} is out of date: NEURARCH_WRITE=1 cargo test --test torch names::"
    );
}

#[test]
fn every_note_is_about_a_name_of_torch() {
    let golden = read("tests/golden/names.txt");
    for (section, name, _) in NOTES {
        let names = golden.split(&format!("[{section}]\n")).nth(1).unwrap();
        let names = names.split("\n[").next().unwrap();
        assert!(names.lines().any(|known| known == *name), "{section}.{name}");
    }
}

#[test]
fn what_the_page_calls_here_is_here() {
    use neurarch::prelude::*;
    // A few of each kind, by the compiler rather than by their spelling.
    let here = [
        size_of::<Conv2d>(),
        size_of::<MaxPool2d>(),
        size_of::<CTCLoss>(),
        size_of::<Adam>(),
        size_of::<OneCycleLR>(),
    ];
    assert!(here.iter().all(|&size| size > 0));
    let page = page();
    for name in ["Conv2d", "MaxPool2d", "CTCLoss", "Adam", "OneCycleLR", "huber_loss", "relu"] {
        assert!(page.contains(&format!("| `{name}` | yes |")), "{name}");
    }
}

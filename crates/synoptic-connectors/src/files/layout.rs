//! Which objects make which table.
//!
//! All of it only asks the location's store, and waits for nothing else: see [`Location::ask`].

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use percent_encoding::percent_decode_str;
use synoptic_source::{ErrorKind, Result, SourceError};

use super::delta::{Added, LOG, Version};
use super::disk::pausing;
use super::error;
use super::format::Format;
use super::location::Location;
use super::options::{Options, ReadOptions};

/// A table of more objects than this is refused: it needs a table format with a manifest.
pub const MAX_OBJECTS: usize = 1_000_000;
/// Folders that are looked into at the same time.
const CONCURRENT_LISTINGS: usize = 16;

/// A table as far as its name tells.
#[derive(Debug, Clone)]
pub struct TableSpec {
    /// Its name in SQL.
    pub name: String,
    /// Where its objects are.
    pub place: Place,
    /// How they are read.
    pub read: ReadOptions,
    /// The configuration names it, so that it must have objects.
    pub configured: bool,
    /// Its folder, when it is a Delta table: then its log says which its objects are.
    pub delta: Option<Path>,
}

/// Where the objects of a table are.
#[derive(Debug, Clone)]
pub enum Place {
    /// One object, or all below a folder.
    Path(Path),
    /// Those below `base` whose path relative to the location matches.
    Glob { base: Path, pattern: glob::Pattern },
    /// A file and a folder claim the same name.
    Clash(String, String),
}

/// One object of a table.
#[derive(Debug, Clone)]
pub struct Object {
    /// Path, size, ETag: what the statement pins.
    pub meta: ObjectMeta,
    /// The path relative to the location, for people.
    pub shown: String,
    /// The folders between the table's own folder and the object, decoded.
    pub folders: Vec<String>,
    /// What a log says of it, when the table has one: then the object never changes.
    pub added: Option<Arc<Added>>,
}

/// The objects of a table at one moment, sorted by path.
#[derive(Debug)]
pub struct Listing {
    /// The objects, at least one.
    pub objects: Vec<Object>,
    /// Their format.
    pub format: Format,
    /// Their sizes together, in bytes.
    pub bytes: u64,
    /// The version of the table, when it has a log.
    pub version: Option<Version>,
}

impl Listing {
    /// A text that differs when any path, size or ETag does.
    pub fn digest(&self) -> String {
        digest(self.objects.iter().map(|object| &object.meta))
    }
}

/// A text that differs when any path, size or ETag of `objects`, or their order, does.
pub fn digest<'a>(objects: impl Iterator<Item = &'a ObjectMeta> + Clone) -> String {
    hashed(|hasher| {
        for meta in objects.clone() {
            meta.location.as_ref().hash(hasher);
            meta.size.hash(hasher);
            identity(meta).hash(hasher);
        }
    })
}

/// A text that differs when `what` does.
pub fn digest_of(what: &impl Hash) -> String {
    hashed(|hasher| what.hash(hasher))
}

fn hashed(hash: impl Fn(&mut DefaultHasher)) -> String {
    let mut digest = String::with_capacity(32);
    for half in 0..2_u8 {
        let mut hasher = DefaultHasher::new();
        half.hash(&mut hasher);
        hash(&mut hasher);
        digest.push_str(&format!("{:016x}", hasher.finish()));
    }
    digest
}

/// What tells one state of an object from another: its ETag, else its time of change.
pub fn identity(meta: &ObjectMeta) -> String {
    meta.e_tag.clone().unwrap_or_else(|| meta.last_modified.to_rfc3339())
}

/// Whether a path is a pattern.
pub fn is_glob(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

/// Every table that has objects, sorted by name.
pub async fn tables(options: &Options) -> Result<Vec<TableSpec>> {
    let specs = specs(options, None).await?;
    let location = &options.location;
    let mut found: Vec<TableSpec> = futures::stream::iter(specs)
        .map(|spec| async move {
            let there =
                spec.configured || spec.delta.is_some() || has_objects(location, &spec).await?;
            Ok::<_, SourceError>(there.then_some(spec))
        })
        .buffer_unordered(CONCURRENT_LISTINGS)
        .try_filter_map(|spec| async move { Ok(spec) })
        .try_collect()
        .await?;
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// The table of this name, if there is one.
pub async fn table(options: &Options, name: &str) -> Result<Option<TableSpec>> {
    Ok(specs(options, Some(name)).await?.into_iter().find(|spec| spec.name == name))
}

/// Every table that may be there, or the one called `only`.
///
/// # Errors
/// When the store does not answer.
pub async fn specs(options: &Options, only: Option<&str>) -> Result<Vec<TableSpec>> {
    let mut specs = places(options, only).await?;
    specs.retain(|(spec, _)| only.is_none_or(|only| spec.name == only));
    let location = &options.location;
    let specs: Vec<Option<TableSpec>> = futures::stream::iter(specs)
        .map(|(mut spec, is_file)| async move {
            let Place::Path(path) = &spec.place else { return Ok(Some(spec)) };
            let may_be = !is_file && (spec.read.delta || spec.read.format.is_none());
            if spec.delta.is_some() || !may_be {
                return Ok(Some(spec));
            }
            if (spec.configured && spec.read.delta) || has_log(location, path).await? {
                spec.delta = Some(path.clone());
            }
            let other = spec.read.delta && spec.delta.is_none();
            Ok::<_, SourceError>((!other).then_some(spec))
        })
        .buffered(CONCURRENT_LISTINGS)
        .try_collect()
        .await?;
    Ok(specs.into_iter().flatten().collect())
}

/// Whether a folder is a Delta table.
async fn has_log(location: &Location, folder: &Path) -> Result<bool> {
    let log = folder.clone().join(LOG);
    if location.local.is_some() {
        let log = LocalFileSystem::new().path_to_filesystem(&log);
        return Ok(match log {
            Ok(log) => log.is_dir(),
            Err(_) => false,
        });
    }
    let first = location.store.list(Some(&log)).try_next().await;
    let first = first.map_err(|e| error::store(&e, "the list of files", location))?;
    Ok(first.is_some())
}

/// Where tables may be, and whether one is known to be a file.
async fn places(options: &Options, only: Option<&str>) -> Result<Vec<(TableSpec, bool)>> {
    if !options.tables.is_empty() {
        return Ok(configured(options).into_iter().map(|spec| (spec, false)).collect());
    }
    let location = &options.location;
    let root = &location.root;
    let spec = |name: String, place: Place| TableSpec {
        name,
        place,
        read: options.read.clone(),
        configured: false,
        delta: None,
    };
    if let Some(name) = root.filename()
        && Format::of_name(name).is_some()
        && head(location, root).await?.is_some()
    {
        let name = Format::stem(&decoded(name)).to_owned();
        return Ok(vec![(spec(name, Place::Path(root.clone())), true)]);
    }
    must_exist(location)?;
    let children = location.store.list_with_delimiter(Some(root)).await;
    let children = children.map_err(|e| error::store(&e, "the list of files", location))?;
    let mut specs: Vec<(TableSpec, bool)> = Vec::new();
    let mut add = |name: String, path: &Path, is_file: bool| {
        if only.is_some_and(|only| only != name) {
            return;
        }
        match specs.iter_mut().map(|(spec, _)| spec).find(|spec| spec.name == name) {
            Some(TableSpec { place: Place::Clash(..), .. }) => {}
            Some(twin) => {
                if let Place::Path(first) = &twin.place {
                    twin.place = Place::Clash(location.relative(first), location.relative(path));
                }
            }
            None => specs.push((spec(name, Place::Path(path.clone())), is_file)),
        }
    };
    let (mut hive, mut log) = (false, false);
    for folder in &children.common_prefixes {
        let Some(name) = folder.filename().map(decoded) else { continue };
        log |= name == LOG && (options.read.delta || options.read.format.is_none());
        if name.contains('=') {
            hive = true;
        } else if !is_hidden(&name) {
            add(name, folder, false);
        }
    }
    for object in &children.objects {
        let Some(name) = object.location.filename().map(decoded) else { continue };
        let fits = !options.read.delta
            && Format::of_name(&name).is_some_and(|(format, _)| {
                options.read.format.is_none_or(|wanted| wanted == format)
            });
        if fits && !is_hidden(&name) {
            add(Format::stem(&name).to_owned(), &object.location, true);
        }
    }
    // A log or `key=value` folders directly below the location: it is itself the table.
    if hive || log {
        let text = location.to_string();
        let name = text.trim_end_matches('/').rsplit('/').next().unwrap_or("files").to_owned();
        let whole = spec(decoded(&name), Place::Path(root.clone()));
        let delta = log.then(|| root.clone());
        return Ok(vec![(TableSpec { delta, ..whole }, false)]);
    }
    Ok(specs)
}

fn configured(options: &Options) -> Vec<TableSpec> {
    let join = |base: &Path, rest: &str| {
        rest.split('/')
            .filter(|s| !s.is_empty() && *s != ".")
            .fold(base.clone(), |path, part| path.join(part))
    };
    let root = &options.location.root;
    let tables = options.tables.iter().map(|table| {
        let place = match glob::Pattern::new(table.path.trim_start_matches("./")) {
            Ok(pattern) if is_glob(&table.path) => {
                let literal = table.path.split('/').take_while(|s| !is_glob(s));
                let base = join(root, &literal.collect::<Vec<_>>().join("/"));
                Place::Glob { base, pattern }
            }
            _ => Place::Path(join(root, &table.path)),
        };
        let (name, read) = (table.name.clone(), table.read.clone());
        TableSpec { name, place, read, configured: true, delta: None }
    });
    tables.collect()
}

/// The objects of a table now; `None` when it has none.
///
/// # Errors
/// When the store does not answer, the name is claimed twice, or the formats differ.
pub async fn objects(location: &Location, spec: &TableSpec) -> Result<Option<Listing>> {
    let mut objects = match &spec.place {
        Place::Clash(one, other) => {
            return Err(SourceError::new(
                ErrorKind::Unsupported,
                format!(
                    "the name '{}' could mean {one} or {other} at {location}: name the tables \
                     under `tables`",
                    spec.name
                ),
            ));
        }
        Place::Path(path) => {
            let named = path.filename().and_then(Format::of_name).is_some();
            if named && let Some(meta) = head(location, path).await? {
                vec![object(location, path, meta)]
            } else {
                let below = below(location, spec, path).try_collect::<Vec<_>>().await?;
                match (below.is_empty() && !named).then_some(path) {
                    Some(path) => match head(location, path).await? {
                        Some(meta) => vec![object(location, path, meta)],
                        None => below,
                    },
                    None => below,
                }
            }
        }
        Place::Glob { base, .. } => below(location, spec, base).try_collect().await?,
    };
    if objects.is_empty() {
        return Ok(None);
    }
    if objects.len() > MAX_OBJECTS {
        return Err(SourceError::new(
            ErrorKind::Unsupported,
            format!("table '{}' has more than {MAX_OBJECTS} files", spec.name),
        ));
    }
    objects.sort_by(|a, b| a.meta.location.cmp(&b.meta.location));
    let format = common_format(spec, &objects)?;
    let bytes = objects.iter().map(|object| object.meta.size).sum();
    Ok(Some(Listing { objects, format, bytes, version: None }))
}

async fn has_objects(location: &Location, spec: &TableSpec) -> Result<bool> {
    match &spec.place {
        Place::Clash(..) => Ok(true),
        Place::Path(path) if path.filename().and_then(Format::of_name).is_some() => {
            Ok(objects(location, spec).await?.is_some())
        }
        Place::Path(path) => Ok(below(location, spec, path).try_next().await?.is_some()),
        Place::Glob { base, .. } => Ok(below(location, spec, base).try_next().await?.is_some()),
    }
}

/// The data files below `base`, in the store's order.
fn below<'a>(
    location: &'a Location,
    spec: &'a TableSpec,
    base: &'a Path,
) -> futures::stream::BoxStream<'a, Result<Object>> {
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: false,
    };
    pausing(location.store.list(Some(base)))
        .map_err(move |e| {
            error::store(&e, &format!("the list of files of table '{}'", spec.name), location)
        })
        .take(MAX_OBJECTS + 1)
        .try_filter_map(move |meta| async move {
            let object = object(location, base, meta);
            let name = object.meta.location.filename().map(decoded).unwrap_or_default();
            if is_hidden(&name) || object.folders.iter().any(|folder| is_hidden(folder)) {
                return Ok(None);
            }
            let told = Format::of_name(&name).map(|(format, _)| format);
            let fits = match (&spec.place, spec.read.format) {
                (Place::Glob { pattern, .. }, wanted) => {
                    pattern.matches_with(&decoded(&object.shown), options)
                        && (told.is_some() || wanted.is_some())
                }
                (_, Some(wanted)) => told == Some(wanted),
                (_, None) => told.is_some(),
            };
            Ok(fits.then_some(object))
        })
        .boxed()
}

fn object(location: &Location, base: &Path, meta: ObjectMeta) -> Object {
    let shown = location.relative(&meta.location);
    let mut folders: Vec<String> = meta
        .location
        .prefix_match(base)
        .map(|parts| parts.map(|part| decoded(part.as_ref())).collect())
        .unwrap_or_default();
    folders.pop();
    Object { meta, shown, folders, added: None }
}

fn common_format(spec: &TableSpec, objects: &[Object]) -> Result<Format> {
    if let Some(format) = spec.read.format {
        return Ok(format);
    }
    let mut first: Option<(Format, &Object)> = None;
    for object in objects {
        let told = object.meta.location.filename().and_then(Format::of_name);
        match (told, first) {
            (None, _) => {
                return Err(SourceError::new(
                    ErrorKind::Unsupported,
                    format!(
                        "file {} has no extension that tells its format: set `format`",
                        object.shown
                    ),
                ));
            }
            (Some((format, _)), None) => first = Some((format, object)),
            (Some((format, _)), Some((other, twin))) if format != other => {
                return Err(SourceError::new(
                    ErrorKind::Unsupported,
                    format!(
                        "table '{}' mixes formats: {} is {other}, {} is {format}; set `format` \
                         or name the tables under `tables`",
                        spec.name, twin.shown, object.shown
                    ),
                ));
            }
            _ => {}
        }
    }
    first.map(|(format, _)| format).ok_or_else(|| SourceError::internal("a listing without files"))
}

/// The object at `path`; `None` when there is none, or a folder.
async fn head(location: &Location, path: &Path) -> Result<Option<ObjectMeta>> {
    if location.local.is_some()
        && let Ok(file) = LocalFileSystem::new().path_to_filesystem(path)
        && file.is_dir()
    {
        return Ok(None);
    }
    match location.store.head(path).await {
        Ok(meta) => Ok(Some(meta)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(e) => Err(error::store(&e, &format!("file {}", location.relative(path)), location)),
    }
}

/// Everything at `location`, sorted by path; `None` when that is more than `most`.
pub async fn everything(location: &Location, most: usize) -> Result<Option<Vec<ObjectMeta>>> {
    must_exist(location)?;
    let listed = pausing(location.store.list(Some(&location.root))).take(most + 1);
    let mut found: Vec<ObjectMeta> =
        listed.try_collect().await.map_err(|e| error::store(&e, "the list of files", location))?;
    if found.len() > most {
        return Ok(None);
    }
    if found.is_empty() {
        found.extend(head(location, &location.root).await?);
    }
    found.sort_by(|a, b| a.location.cmp(&b.location));
    Ok(Some(found))
}

/// Those of `found` at `location` that may be data.
pub fn visible(location: &Location, mut found: Vec<ObjectMeta>) -> Vec<ObjectMeta> {
    found.retain(|meta| {
        let parts = meta.location.prefix_match(&location.root);
        !parts.into_iter().flatten().any(|part| is_hidden(&decoded(part.as_ref())))
    });
    found
}

/// A local folder that is missing is not an empty one.
pub fn must_exist(location: &Location) -> Result<()> {
    let Some(path) = &location.local else { return Ok(()) };
    match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(e) => Err(SourceError::new(
            ErrorKind::Unavailable,
            format!(
                "the location {location} cannot be read ({e}): create it or correct `location`"
            ),
        )),
    }
}

/// Whether a file or folder of this name is never data.
pub fn is_hidden(name: &str) -> bool {
    name.starts_with('.') || (name.starts_with('_') && !name.contains('='))
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

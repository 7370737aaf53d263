//! What an ELF file says to the dynamic loader, read from the file: nothing is loaded.
//!
//! Only the sections that are asked for are read, so a host library of a gigabyte costs as much as its symbol table.
//! Files are somebody else's: every read is checked, and a file that makes no sense is an error.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::Path;

use object::elf::{
    DT_FLAGS_1, DT_NEEDED, DT_RPATH, DT_RUNPATH, DT_SONAME, EM_X86_64, FileHeader64, SHT_DYNSYM, SHT_NOTE,
    Sym64,
};
use object::read::elf::{FileHeader, SectionHeader, SectionTable, Sym};
use object::{LittleEndian, ReadCache, ReadRef, StringTable};

/// A shared object, as far as `baton doctor` has to know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elf {
    /// `DT_SONAME`.
    pub soname: Option<String>,
    /// `DT_NEEDED`, in order.
    pub needed: Vec<String>,
    /// `DT_RPATH`, unsplit.
    pub rpath: Option<String>,
    /// `DT_RUNPATH`, unsplit.
    pub runpath: Option<String>,
    /// `DF_1_NODEFLIB`: the loader leaves out its cache and its default folders.
    pub no_default_folders: bool,
    /// Versions of symbols that it needs: of which library, and which (`libc.so.6`, `GLIBC_2.34`).
    pub needed_versions: Vec<(String, String)>,
    /// Versions of symbols that it has.
    pub given_versions: BTreeSet<String>,
    /// Dynamic symbols that it defines, of those that were asked for.
    pub exports: BTreeSet<String>,
    /// Dynamic symbols that it needs from elsewhere, of those that were asked for.
    pub imports: BTreeSet<String>,
    /// The version in Baton's own note.
    pub baton: Option<String>,
}

/// What a file on the loader's way is to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// No such file: the loader goes on.
    Absent,
    /// For another processor: the loader goes on.
    OtherMachine,
    /// The loader takes it.
    Object,
    /// The loader stops with an error: no ELF file, or one that cannot be read.
    Broken(String),
}

type Sections<'data, R> = SectionTable<'data, FileHeader64<LittleEndian>, R>;

impl Elf {
    /// Reads a file; of its symbols those that `wanted` picks.
    ///
    /// # Errors
    /// The system's, or what is wrong with the file.
    pub fn read(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let cache = ReadCache::new(file);
        Self::of_sections(&cache, wanted).map_err(|error| error.to_string())
    }

    /// Reads the sections of a file, or of bytes.
    pub(crate) fn of_sections<'data, R: ReadRef<'data>>(
        data: R,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Self, object::read::Error> {
        let header = FileHeader64::<LittleEndian>::parse(data)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, data)?;
        let mut elf = Self::default();
        elf.read_dynamic(&sections, data)?;
        elf.read_versions(&sections, data)?;
        for section in sections.iter() {
            match section.sh_type(endian) {
                SHT_DYNSYM => {
                    let symbols: &[Sym64<LittleEndian>] = section.data_as_array(endian, data)?;
                    // In one piece: symbol by symbol the cache would read the file once for each name.
                    let names = sections.section(section.link(endian))?.data(endian, data)?;
                    elf.read_symbols(symbols, names, &wanted);
                }
                SHT_NOTE => {
                    let mut notes = section.notes(endian, data)?;
                    while let Some(note) = notes.as_mut().map(|notes| notes.next()).transpose()?.flatten() {
                        if note.name() == NOTE_NAME && note.n_type(endian).0 == NOTE_TYPE {
                            elf.baton = Some(text(note.desc()));
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(elf)
    }

    fn read_dynamic<'data, R: ReadRef<'data>>(
        &mut self,
        sections: &Sections<'data, R>,
        data: R,
    ) -> Result<(), object::read::Error> {
        let Some((entries, link)) = sections.dynamic(LittleEndian, data)? else { return Ok(()) };
        let names = sections.section(link)?.data(LittleEndian, data)?;
        let names = StringTable::new(names, 0, names.len() as u64);
        for entry in entries {
            let (tag, value) = (entry.d_tag.get(LittleEndian), entry.d_val.get(LittleEndian));
            let string = || u32::try_from(value).ok().and_then(|at| names.get(at).ok()).map(text);
            match tag {
                DT_SONAME => self.soname = string(),
                DT_NEEDED => self.needed.extend(string()),
                DT_RPATH => self.rpath = string(),
                DT_RUNPATH => self.runpath = string(),
                DT_FLAGS_1 => self.no_default_folders = value & NODEFLIB != 0,
                _ => {}
            }
        }
        Ok(())
    }

    fn read_versions<'data, R: ReadRef<'data>>(
        &mut self,
        sections: &Sections<'data, R>,
        data: R,
    ) -> Result<(), object::read::Error> {
        let texts = |link| {
            let bytes = sections.section(link)?.data(LittleEndian, data)?;
            Ok::<_, object::read::Error>(StringTable::new(bytes, 0, bytes.len() as u64))
        };
        if let Some((mut libraries, link)) = sections.gnu_verneed(LittleEndian, data)? {
            let texts = texts(link)?;
            while let Some((library, mut versions)) = libraries.next()? {
                let file = text(library.file(LittleEndian, texts)?);
                while let Some(version) = versions.next()? {
                    self.needed_versions.push((file.clone(), text(version.name(LittleEndian, texts)?)));
                }
            }
        }
        if let Some((mut versions, link)) = sections.gnu_verdef(LittleEndian, data)? {
            let texts = texts(link)?;
            while let Some((_, mut names)) = versions.next()? {
                // The first name is the version's; the others are what it builds upon.
                if let Some(name) = names.next()? {
                    self.given_versions.insert(text(name.name(LittleEndian, texts)?));
                }
            }
        }
        Ok(())
    }

    fn read_symbols(&mut self, symbols: &[Sym64<LittleEndian>], names: &[u8], wanted: impl Fn(&str) -> bool) {
        let names = StringTable::new(names, 0, names.len() as u64);
        for symbol in symbols {
            let name =
                names.get(symbol.st_name(LittleEndian)).ok().and_then(|name| str::from_utf8(name).ok());
            let Some(name) = name.filter(|name| !name.is_empty() && wanted(name)) else { continue };
            match (symbol.is_undefined(LittleEndian), symbol.is_weak()) {
                (false, _) => drop(self.exports.insert(name.to_owned())),
                (true, false) => drop(self.imports.insert(name.to_owned())),
                (true, true) => {} // may stay undefined: no reason to refuse the file
            }
        }
    }
}

/// What the loader would make of a file.
pub fn kind(path: &Path) -> FileKind {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if absent(&error) => return FileKind::Absent,
        Err(error) => return FileKind::Broken(error.to_string()),
    };
    if file.metadata().is_ok_and(|found| !found.is_file()) {
        return FileKind::Broken("is not a file".to_owned());
    }
    let cache = ReadCache::new(file);
    match object::FileKind::parse(&cache) {
        Ok(object::FileKind::Elf64) => match FileHeader64::<LittleEndian>::parse(&cache) {
            Ok(header) if header.e_machine(LittleEndian) == EM_X86_64 => FileKind::Object,
            _ => FileKind::OtherMachine,
        },
        Ok(object::FileKind::Elf32) => FileKind::OtherMachine,
        _ => FileKind::Broken("is no ELF file".to_owned()),
    }
}

fn absent(error: &io::Error) -> bool {
    // A folder that may not be searched is passed over by the loader, as one that is not there.
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied
    )
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

const NOTE_NAME: &[u8] = b"Baton";
const NOTE_TYPE: u32 = 1;
const NODEFLIB: u64 = 0x800;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_is_read_as_what_it_is() {
        let own = std::env::current_exe().unwrap();
        let elf = Elf::read(&own, |name| name == "malloc").unwrap();
        assert!(elf.needed.iter().any(|name| name == "libc.so.6"), "{elf:?}");
        assert_eq!(elf.imports.iter().collect::<Vec<_>>(), ["malloc"]);
        let of_libc =
            |(library, version): &(String, String)| library == "libc.so.6" && version.starts_with("GLIBC_2.");
        assert!(elf.needed_versions.iter().any(of_libc), "{:?}", elf.needed_versions);
        assert_eq!((elf.baton, elf.soname), (None, None));
        assert_eq!(kind(&own), FileKind::Object);
    }

    #[test]
    fn what_is_no_object_is_told_apart() {
        assert_eq!(kind(Path::new("/nonexistent/x.so")), FileKind::Absent);
        assert_eq!(kind(Path::new("/proc/self/status")), FileKind::Broken("is no ELF file".into()));
        assert_eq!(kind(Path::new("/")), FileKind::Broken("is not a file".into()));
        assert!(Elf::read(Path::new("/proc/self/status"), |_| true).is_err());
    }
}

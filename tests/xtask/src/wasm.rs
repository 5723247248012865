//! The sections of WebAssembly files: as much as is needed to work on the module within a component.

/// How long the magic number and the version are, of a module and of a component.
const PREAMBLE: usize = 8;

/// The kind of a section that is there for readers only: names, and who made the file.
const CUSTOM: u8 = 0;

/// The kind of a section of a component that is a module.
const MODULE: u8 = 1;

/// A section: its kind, and what is in it.
type Section<'a> = (u8, &'a [u8]);

/// The file without its custom sections.
pub(crate) fn stripped(file: &[u8]) -> Result<Vec<u8>, String> {
    let (preamble, sections) = sections(file).ok_or("not WebAssembly")?;
    let kept = sections.into_iter().filter(|(kind, _)| *kind != CUSTOM);
    Ok(written(preamble, kept))
}

/// The largest module of a component: the program. The others are small glue.
pub(crate) fn program(component: &[u8]) -> Result<&[u8], String> {
    sections(component)
        .into_iter()
        .flat_map(|(_, sections)| sections)
        .filter(|(kind, _)| *kind == MODULE)
        .map(|(_, module)| module)
        .max_by_key(|module| module.len())
        .ok_or_else(|| "not a component".to_owned())
}

/// The component with the module `new` in place of its program, which has the same imports and exports.
pub(crate) fn with_program(component: &[u8], new: &[u8]) -> Result<Vec<u8>, String> {
    let old = program(component)?;
    let (preamble, sections) = sections(component).ok_or("not WebAssembly")?;
    let replaced = sections.into_iter().map(|(kind, content)| {
        let is_program = kind == MODULE && std::ptr::eq(content, old);
        (kind, if is_program { new } else { content })
    });
    Ok(written(preamble, replaced))
}

fn sections(file: &[u8]) -> Option<(&[u8], Vec<Section<'_>>)> {
    let (preamble, mut rest) = file.split_at_checked(PREAMBLE)?;
    preamble.starts_with(b"\0asm").then_some(())?;
    let mut sections = Vec::new();
    while let [kind, after @ ..] = rest {
        let (length, after) = number(after)?;
        let (content, after) = after.split_at_checked(length)?;
        sections.push((*kind, content));
        rest = after;
    }
    Some((preamble, sections))
}

fn written<'a>(preamble: &[u8], sections: impl Iterator<Item = Section<'a>>) -> Vec<u8> {
    let mut file = preamble.to_vec();
    for (kind, content) in sections {
        file.push(kind);
        push_number(&mut file, content.len());
        file.extend_from_slice(content);
    }
    file
}

/// A number as WebAssembly writes it, seven bits a byte and the lowest first, and what follows it.
fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0;
    for (place, byte) in bytes.iter().enumerate().take(5) {
        value |= usize::from(byte & 0x7f) << (7 * place);
        if *byte < 0x80 {
            return Some((value, bytes.get(place + 1..)?));
        }
    }
    None
}

fn push_number(file: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        file.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    file.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
    const PLAIN: &[u8] = b"\0asm\x01\0\0\0";

    fn file(preamble: &[u8], sections: &[Section<'_>]) -> Vec<u8> {
        written(preamble, sections.iter().copied())
    }

    #[test]
    fn the_program_is_the_largest_module_and_can_be_replaced() {
        let long = vec![7; 300];
        let before = file(
            COMPONENT,
            &[
                (1, b"ab"),
                (7, b"types, and long ones"),
                (1, &long),
                (1, b"ab"),
            ],
        );
        assert_eq!(program(&before), Ok(&*long));
        let after = with_program(&before, b"new").unwrap();
        let expected = file(
            COMPONENT,
            &[
                (1, b"ab"),
                (7, b"types, and long ones"),
                (1, b"new"),
                (1, b"ab"),
            ],
        );
        assert_eq!(after, expected);
    }

    #[test]
    fn what_is_for_readers_only_is_left_out() {
        let before = file(PLAIN, &[(0, b"\x04name"), (10, &[9; 200]), (0, b"")]);
        assert_eq!(stripped(&before), Ok(file(PLAIN, &[(10, &[9; 200])])));
    }

    #[test]
    fn what_is_no_webassembly_is_said_to_be_none() {
        let whole = file(COMPONENT, &[(1, &[1; 200])]);
        for cut in (0..whole.len()).filter(|cut| *cut != PREAMBLE) {
            let part = whole.get(..cut).unwrap();
            assert!(stripped(part).is_err(), "{cut}");
            assert!(program(part).is_err(), "{cut}");
        }
        assert!(program(&file(PLAIN, &[])).is_err());
        assert!(stripped(b"\0ASM\x01\0\0\0").is_err());
    }
}

//! What the line discipline does with typed and written bytes.

use super::*;

fn typed(tty: &mut Discipline, bytes: &[u8]) -> Effects {
    let mut effects = Effects::default();
    tty.type_bytes(bytes, &mut effects);
    effects
}

fn read(tty: &mut Discipline, room: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    tty.read(room, &mut out).map(|_| out)
}

fn raw() -> Discipline {
    Discipline::new(Termios {
        c_lflag: 0,
        c_iflag: 0,
        ..Termios::default()
    })
}

#[test]
fn a_line_is_readable_only_when_it_is_finished() {
    let mut tty = Discipline::default();
    typed(&mut tty, b"hel");
    assert!(!tty.can_read(1));
    assert_eq!(read(&mut tty, 9), None);
    let effects = typed(&mut tty, b"lo\r");
    assert_eq!(effects.echo, b"lo\r\n");
    assert_eq!(read(&mut tty, 3), Some(b"hel".to_vec()));
    assert_eq!(read(&mut tty, 64), Some(b"lo\n".to_vec()));
    assert_eq!(read(&mut tty, 64), None);
}

#[test]
fn a_read_takes_one_line_at_most() {
    let mut tty = Discipline::default();
    typed(&mut tty, b"a\nb\n");
    assert_eq!(read(&mut tty, 64), Some(b"a\n".to_vec()));
    assert_eq!(read(&mut tty, 64), Some(b"b\n".to_vec()));
}

#[test]
fn erase_wipes_characters_and_control_characters() {
    let mut tty = Discipline::default();
    let effects = typed(&mut tty, b"ab\x7f");
    assert_eq!(effects.echo, b"ab\x08 \x08");
    let effects = typed(&mut tty, b"\x01\x7f");
    assert_eq!(effects.echo, b"^A\x08 \x08\x08 \x08");
    typed(&mut tty, b"c\n");
    assert_eq!(read(&mut tty, 64), Some(b"ac\n".to_vec()));
}

#[test]
fn erase_of_a_tab_goes_back_to_its_start() {
    let mut tty = Discipline::default();
    typed(&mut tty, b"abc\t");
    assert_eq!(typed(&mut tty, b"\x7f").echo, b"\x08\x08\x08\x08\x08");
}

#[test]
fn kill_and_word_erase() {
    let mut tty = Discipline::default();
    typed(&mut tty, b"one two  \x17x\n");
    assert_eq!(read(&mut tty, 64), Some(b"one x\n".to_vec()));
    typed(&mut tty, b"gone\x15kept\n");
    assert_eq!(read(&mut tty, 64), Some(b"kept\n".to_vec()));
}

#[test]
fn end_of_file_delivers_what_is_there_then_nothing() {
    let mut tty = Discipline::default();
    typed(&mut tty, b"ab\x04\x04");
    assert_eq!(read(&mut tty, 64), Some(b"ab".to_vec()));
    assert_eq!(read(&mut tty, 64), Some(Vec::new()));
    assert_eq!(read(&mut tty, 64), None);
}

#[test]
fn interrupt_raises_a_signal_and_discards_the_line() {
    let mut tty = Discipline::default();
    let effects = typed(&mut tty, b"abc\x03");
    assert_eq!(effects.signals, [Signal::Interrupt]);
    assert_eq!(effects.echo, b"abc^C");
    typed(&mut tty, b"d\n");
    assert_eq!(read(&mut tty, 64), Some(b"d\n".to_vec()));
}

#[test]
fn literal_next_takes_a_control_character_as_input() {
    let mut tty = Discipline::default();
    let effects = typed(&mut tty, b"\x16\x03\n");
    assert!(effects.signals.is_empty());
    assert_eq!(read(&mut tty, 64), Some(b"\x03\n".to_vec()));
}

#[test]
fn raw_mode_delivers_bytes_at_once_and_untouched() {
    let mut tty = raw();
    let effects = typed(&mut tty, b"\x03\r\x7f");
    assert!(effects.echo.is_empty() && effects.signals.is_empty());
    assert!(tty.can_read(3) && !tty.can_read(4));
    assert_eq!(read(&mut tty, 64), Some(b"\x03\r\x7f".to_vec()));
    assert_eq!(read(&mut tty, 64), None);
}

#[test]
fn mode_changes_keep_what_was_typed() {
    let mut tty = Discipline::default();
    typed(&mut tty, b"half");
    let canonical = *tty.termios();
    tty.set_termios(*raw().termios());
    assert_eq!(read(&mut tty, 2), Some(b"ha".to_vec()));
    tty.set_termios(canonical);
    assert_eq!(read(&mut tty, 64), Some(b"lf".to_vec()));
}

#[test]
fn output_gets_carriage_returns_unless_raw() {
    let mut tty = Discipline::default();
    let mut out = Vec::new();
    tty.write(b"a\nb\n", &mut out);
    assert_eq!(out, b"a\r\nb\r\n");
    out.clear();
    tty.set_termios(Termios {
        c_oflag: 0,
        ..Termios::default()
    });
    tty.write(b"a\nb", &mut out);
    assert_eq!(out, b"a\nb");
}

#[test]
fn tabs_expand_by_column() {
    let mut termios = Termios::default();
    termios.c_oflag |= Output::XTABS.bits();
    let mut tty = Discipline::new(termios);
    let mut out = Vec::new();
    tty.write(b"ab\tc\n\td", &mut out);
    assert_eq!(out, b"ab      c\r\n        d");
}

#[test]
fn a_flood_is_bounded_and_the_line_can_still_end() {
    let mut tty = Discipline::default();
    typed(&mut tty, &[b'x'; 3 * BUFFER_LIMIT]);
    typed(&mut tty, b"\n");
    let line = read(&mut tty, 1 << 20).unwrap();
    assert_eq!(line.len(), BUFFER_LIMIT);
    assert_eq!(line.last(), Some(&b'\n'));
}

#[test]
fn stop_and_start_hold_the_output() {
    let mut tty = Discipline::default();
    typed(&mut tty, b"\x13");
    assert!(tty.is_output_stopped());
    assert!(typed(&mut tty, b"\x11").output_restarted);
    assert!(!tty.is_output_stopped());
}

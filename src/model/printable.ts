/** Letters, digits, punctuation, symbols and the space of any script; not marks, controls or formats, which can hide or reorder text. */
const UNPRINTABLE = /[^\p{L}\p{N}\p{P}\p{S} ]/gu
const SHOWN_MAX = 160

/** Foreign text for a message: quoted, cut, and with whatever could upset a terminal or a reader escaped. */
export function printable (text: string): string {
  const cut = text.length > SHOWN_MAX ? `${text.slice(0, SHOWN_MAX)}...` : text
  const escaped = cut.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replace(UNPRINTABLE, escape)
  return `"${escaped}"`
}

function escape (character: string): string {
  const code = character.codePointAt(0) ?? 0
  return code > 0xffff ? `\\u{${code.toString(16)}}` : `\\u${code.toString(16).padStart(4, '0')}`
}

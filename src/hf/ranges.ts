/** Conditions and ranges of a request for a file (RFC 9110, sections 13 and 14). Pure. */

export interface ByteRange { offset: number, length: number }

/** What to answer: the whole file, a part of it, or nothing. */
export type Answer =
  { status: 200 | 206, range: ByteRange } |
  { status: 304 } |
  { status: 412 } |
  { status: 416 }

export interface RangeHeaders {
  range?: string | undefined
  'if-range'?: string | undefined
  'if-match'?: string | undefined
  'if-none-match'?: string | undefined
}

/** `etag` without quotes, `size` in bytes. Ranges that are no ranges, and lists of them, are ignored, as the RFC lets a server do. */
export function answerFor (method: string, headers: RangeHeaders, { etag, size }: { etag: string, size: number }): Answer {
  const match = headers['if-match']
  if (match !== undefined && !names(match, etag)) return { status: 412 }
  const noneMatch = headers['if-none-match']
  if (noneMatch !== undefined && names(noneMatch, etag)) return { status: 304 }
  const whole: Answer = { status: 200, range: { offset: 0, length: size } }
  const { range, 'if-range': ifRange } = headers
  if (range === undefined || method !== 'GET') return whole
  if (ifRange !== undefined && ifRange.trim() !== `"${etag}"`) return whole // a date names no version here
  const [, first = '', last = ''] = /^bytes=(\d{0,16})-(\d{0,16})$/i.exec(range.replace(/[ \t]/g, '')) ?? []
  if (first === '' && last === '') return whole
  if (first === '') {
    const length = Math.min(Number(last), size)
    return length === 0 ? { status: 416 } : { status: 206, range: { offset: size - length, length } }
  }
  const offset = Number(first)
  const end = last === '' ? size : Math.min(Number(last) + 1, size)
  if (last !== '' && Number(last) < offset) return whole
  if (offset >= size) return { status: 416 }
  return { status: 206, range: { offset, length: end - offset } }
}

/** `*`, or a list of tags, one of which is this; weak ones count too, since every byte is named by it. */
function names (list: string, etag: string): boolean {
  if (list.trim() === '*') return true
  return list.split(',').some(tag => tag.trim().replace(/^W\//, '') === `"${etag}"`)
}

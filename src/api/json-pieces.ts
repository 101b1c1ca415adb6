/** Elements of a long array that are written at a time. */
const ELEMENTS_PER_PIECE = 2_000
const CHUNK_LENGTH = 64 * 1024

/** What JSON.stringify makes of plain data, in pieces: of long arrays a part at a time. */
export function * jsonPieces (value: unknown): Generator<string> {
  if (Array.isArray(value)) yield * arrayPieces(value)
  else if (typeof value === 'object' && value !== null) yield * objectPieces(value)
  else yield JSON.stringify(value)
}

function * arrayPieces (elements: readonly unknown[]): Generator<string> {
  yield '['
  // Long ones are lists of small things, and a call for each of these would cost more than it.
  const isLong = elements.length > ELEMENTS_PER_PIECE
  for (let at = 0; at < elements.length; at += isLong ? ELEMENTS_PER_PIECE : 1) {
    if (at > 0) yield ','
    if (isLong) yield JSON.stringify(elements.slice(at, at + ELEMENTS_PER_PIECE)).slice(1, -1)
    else yield * jsonPieces(elements[at] ?? null)
  }
  yield ']'
}

function * objectPieces (fields: object): Generator<string> {
  let before = '{'
  for (const [name, value] of Object.entries(fields)) {
    if (value === undefined) continue
    yield `${before}${JSON.stringify(name)}:`
    yield * jsonPieces(value)
    before = ','
  }
  yield before === '{' ? '{}' : '}'
}

/** The same as the body of an answer, made as fast as it is read, with a turn for others after each piece. */
export function jsonStream (value: unknown): ReadableStream<Uint8Array> {
  const pieces = jsonPieces(value)
  const encoder = new TextEncoder()
  return new ReadableStream<Uint8Array>({
    async pull (controller) {
      const chunk: string[] = []
      let length = 0
      for (let piece = pieces.next(); piece.done !== true; piece = pieces.next()) {
        chunk.push(piece.value)
        length += piece.value.length
        if (length >= CHUNK_LENGTH) break
      }
      if (length === 0) controller.close()
      else controller.enqueue(encoder.encode(chunk.join('')))
      await new Promise(resolve => { setImmediate(resolve) })
    }
  }, { highWaterMark: 0 })
}

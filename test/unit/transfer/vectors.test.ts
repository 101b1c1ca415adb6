import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { dhtKey } from '../../../src/discovery/index.ts'
import { hashBlock } from '../../../src/model/index.ts'
import { CANCEL, DATA, NOT_HERE, REQUEST, encodeChange, encodeField, encodeHead, encodeIds, encodeRequests, encodeState } from '../../../src/transfer/messages.ts'
import { STREAM_DATA, packData } from '../../../src/transfer/wire.ts'

describe('the test vectors of docs/PROTOCOL.md', () => {
  const bytes = new TextEncoder().encode('shoal')
  const block = hashBlock(bytes)
  const first = (frames: Uint8Array[]): Uint8Array => frames[0] ?? new Uint8Array(0)
  const vectors: Array<[string, Uint8Array]> = [
    ['REQUEST', first(encodeRequests(REQUEST, [{ id: 1, cid: block }]))],
    ['HEAD', encodeHead(1, 5)],
    ['DATA', packData(DATA, 1, bytes, 0, STREAM_DATA, length => new Uint8Array(length)).frames],
    ['NOT_HERE', first(encodeIds(NOT_HERE, [1]))],
    ['CANCEL', first(encodeIds(CANCEL, [1]))],
    ['STATE', encodeState({ known: true, complete: false })],
    ['CHANGE', encodeChange({ file: 0, have: [3], lost: [] })],
    ['FIELD', encodeField({ file: 0, offset: 0, bytes: Uint8Array.from([5]) })]
  ]

  it('are what is sent', async () => {
    const page = await readFile(new URL('../../../docs/PROTOCOL.md', import.meta.url), 'utf8')
    for (const [name, frame] of vectors) {
      const row = page.split('\n').find(line => new RegExp(`^\\| ${name}\\b.*\\| \`[0-9a-f]+\` \\|$`).test(line))
      assert.ok(row?.includes(`\`${Buffer.from(frame).toString('hex')}\``), name)
    }
    assert.ok(page.includes(block.toString()))
    assert.ok(page.includes(dhtKey(block).toString()))
  })
})

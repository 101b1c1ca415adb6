import { deepStrictEqual, strictEqual, throws } from 'node:assert/strict'
import { decode, encode } from '@ipld/dag-cbor'
import type { CID } from 'multiformats/cid'
import { ProtocolError, seededRandom } from '../../../src/base/index.ts'
import { hashBlock, hashMetadata } from '../../../src/model/index.ts'
import { packHead, packRequests, unpackHead, unpackRequests } from '../../../src/transfer/hot-messages.ts'
import { REQUEST, decodeHead, decodeRequests, encodeHead, encodeRequests } from '../../../src/transfer/messages.ts'
import { FRAME_HEAD_BYTES } from '../../../src/transfer/wire.ts'

const NUMBERS = [0, 1, 23, 24, 25, 255, 256, 257, 65_535, 65_536, 4_194_304, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]
const cids = [hashBlock(Buffer.from('a')), hashBlock(Buffer.from('b')), hashMetadata(Buffer.from('c'))]
const requests = (random: () => number, count: number): Array<{ id: number, cid: CID }> => Array.from({ length: count }, () => ({
  id: NUMBERS[Math.floor(random() * NUMBERS.length)] ?? 1,
  cid: cids[Math.floor(random() * cids.length)] as CID
}))
const body = (frame: Uint8Array | undefined): Uint8Array => (frame as Uint8Array).subarray(FRAME_HEAD_BYTES)

/** What the library makes of it: undefined for what it, or the check for canonical bytes, refuses. */
function byLibrary (bytes: Uint8Array): unknown {
  try {
    const value: unknown = decode(bytes)
    return Buffer.compare(encode(value), bytes) === 0 ? value : undefined
  } catch {
    return undefined
  }
}

describe('hot messages', () => {
  it('are the bytes of the library, and read back', () => {
    for (const id of NUMBERS) {
      for (const size of NUMBERS) {
        const packed = packHead({ id, size })
        deepStrictEqual(Buffer.from(packed ?? []), Buffer.from(encode({ id, size })))
        deepStrictEqual(unpackHead(packed ?? new Uint8Array()), { id, size })
      }
    }
    const random = seededRandom(1)
    for (const count of [1, 2, 23, 24, 200, 300]) {
      const wanted = requests(() => random.next(), count)
      const packed = packRequests(wanted)
      deepStrictEqual(Buffer.from(packed ?? []), Buffer.from(encode(wanted)))
      deepStrictEqual(unpackRequests(packed ?? new Uint8Array())?.map(({ id, cid }) => [id, cid.toString()]), wanted.map(({ id, cid }) => [id, cid.toString()]))
    }
  })

  it('leave numbers beyond 32 bits to the library', () => {
    strictEqual(packHead({ id: 1, size: 2 ** 32 }), undefined)
    strictEqual(packHead({ id: 0.5, size: 1 }), undefined)
    strictEqual(packRequests([{ id: 2 ** 32, cid: cids[0] as CID }]), undefined)
    strictEqual(unpackHead(encode({ id: 1, size: 2 ** 33 })), undefined)
    strictEqual(decodeHead(encode({ id: 1, size: 2 ** 33 })).size, 2 ** 33)
  })

  it('read nothing that the library reads otherwise: every cut, every changed byte, every byte too many', () => {
    const random = seededRandom(2)
    const heads = NUMBERS.map(id => encode({ id, size: 300 }))
    const lists = [1, 2].map(count => encode(requests(() => random.next(), count)))
    let read = 0
    const check = (bytes: Uint8Array): void => {
      const head = unpackHead(bytes)
      if (head !== undefined) { read++; deepStrictEqual(byLibrary(bytes), head) }
      let list: ReturnType<typeof unpackRequests>
      try {
        list = unpackRequests(bytes)
      } catch {
        return // a CID that is none: the library's reading ends in the same error
      }
      if (list === undefined) return
      read++
      deepStrictEqual((byLibrary(bytes) as typeof list).map(({ id, cid }) => [id, cid.toString()]), list.map(({ id, cid }) => [id, cid.toString()]))
    }
    for (const whole of [...heads, ...lists]) {
      for (let length = 0; length < whole.length; length++) check(whole.subarray(0, length))
      check(Uint8Array.of(...whole, 0))
      const changed = new Uint8Array(whole)
      for (let at = 0; at < Math.min(whole.length, 120); at++) {
        for (let byte = 0; byte < 256; byte++) {
          changed[at] = byte
          check(changed)
        }
        changed[at] = whole[at] ?? 0
      }
    }
    strictEqual(read > 5_000, true, `only ${read} were read at all`)
  })

  it('are checked like all others: ids that are none, links to something else, other spellings', () => {
    throws(() => decodeHead(encode({ id: 0, size: 1 })), ProtocolError)
    throws(() => decodeHead(encode({ id: 1, size: 0 })), ProtocolError)
    throws(() => decodeRequests(encode([{ id: 0, cid: cids[0] }])), ProtocolError)
    throws(() => decodeRequests(encode([])), ProtocolError)
    const [frame] = encodeRequests(REQUEST, [{ id: 7, cid: cids[0] as CID }])
    strictEqual(decodeRequests(body(frame))[0]?.id, 7)
    const otherHash = Buffer.from(body(frame))
    otherHash[otherHash.length - 34] = 0x13
    throws(() => decodeRequests(otherHash), ProtocolError)
    const longer = Buffer.from(body(encodeHead(7, 1)))
    throws(() => decodeHead(Buffer.concat([longer.subarray(0, 4), Buffer.of(0x18, 7), longer.subarray(5)])), ProtocolError)
  })

  it('are not kept alive by, and do not change with, the memory they were read from', () => {
    const [frame] = encodeRequests(REQUEST, [{ id: 7, cid: cids[0] as CID }])
    const bytes = body(frame)
    const [request] = decodeRequests(bytes)
    bytes.fill(0)
    strictEqual(request?.cid.toString(), cids[0]?.toString())
  })
})

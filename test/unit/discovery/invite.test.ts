import assert from 'node:assert/strict'
import { hash } from 'node:crypto'
import * as dagCbor from '@ipld/dag-cbor'
import { multiaddr } from '@multiformats/multiaddr'
import fc from 'fast-check'
import { base32 } from 'multiformats/bases/base32'
import { decodeInvite, encodeInvite } from '../../../src/discovery/invite.ts'

const PEER = '12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5'
const address = fc.record({ ip: fc.ipV4(), port: fc.integer({ min: 1, max: 65_535 }) }).map(({ ip, port }) => `/ip4/${ip}/tcp/${port}/p2p/${PEER}`)
const key = fc.uint8Array({ minLength: 32, maxLength: 32 })

/** A token that is whole, whatever stands in it. */
function token (value: unknown): string {
  const body = dagCbor.encode(value)
  return 'shoal1' + base32.baseEncode(Buffer.concat([body, hash('sha256', body, 'buffer').subarray(0, 4)]))
}

describe('an invite', () => {
  it('comes out as it went in, with and without a key, in either case and with space around', () => {
    fc.assert(fc.property(fc.array(address, { minLength: 1, maxLength: 16 }), fc.option(key, { nil: undefined }), (addresses, swarmKey) => {
      const invite = { addresses, ...(swarmKey === undefined ? {} : { swarmKey }) }
      const text = encodeInvite(invite)
      assert.match(text, /^shoal1[a-z2-7]+$/)
      assert.deepEqual(decodeInvite(text), invite)
      assert.deepEqual(decodeInvite(` ${text.toUpperCase()}\n`), invite)
    }))
  })

  it('keeps the first 16 of many addresses, and needs one', () => {
    const addresses = Array.from({ length: 40 }, (_, i) => `/ip4/10.0.0.${i}/tcp/1`)
    assert.deepEqual(decodeInvite(encodeInvite({ addresses })).addresses, addresses.slice(0, 16))
    assert.throws(() => encodeInvite({ addresses: [] }), { name: 'UsageError' })
    assert.throws(() => encodeInvite({ addresses, swarmKey: new Uint8Array(31) }), { name: 'UsageError' })
  })

  it('with any one letter changed, or cut short, is refused', () => {
    const text = encodeInvite({ addresses: [`/ip4/10.0.0.1/tcp/4001/p2p/${PEER}`], swarmKey: new Uint8Array(32).fill(3) })
    fc.assert(fc.property(fc.integer({ min: 6, max: text.length - 2 }), fc.constantFrom(...Array.from('abcdefghijklmnopqrstuvwxyz234567')), (at, letter) => {
      fc.pre(text[at] !== letter)
      assert.throws(() => decodeInvite(text.slice(0, at) + letter + text.slice(at + 1)), { name: 'InvalidInviteError' })
      assert.throws(() => decodeInvite(text.slice(0, at)), { name: 'InvalidInviteError' })
    }))
  })

  it('that is none says what is wrong', () => {
    const bytes = multiaddr('/ip4/10.0.0.1/tcp/1').bytes
    const cases: Array<[string, RegExp]> = [
      ['', /begins with "shoal1"/],
      ['hello', /begins with "shoal1"/],
      ['shoal1', /checksum/],
      ['shoal1!!!', /letters a to z/],
      ['shoal1' + 'a'.repeat(100_000), /at most/],
      [token('text'), /does not know/],
      [token({ addresses: 'x' }), /does not know/],
      [token({ addresses: [bytes], more: 1 }), /does not know/],
      [token({ addresses: ['x'] }), /does not know/],
      [token({ addresses: [] }), /1 to 16 addresses/],
      [token({ addresses: Array.from({ length: 17 }, () => bytes) }), /1 to 16 addresses/],
      [token({ addresses: [Uint8Array.of(255, 255, 255)] }), /no address/],
      [token({ addresses: [bytes], key: new Uint8Array(16) }), /32 bytes/]
    ]
    for (const [text, message] of cases) assert.throws(() => decodeInvite(text), { name: 'InvalidInviteError', message }, text.slice(0, 40))
  })
})

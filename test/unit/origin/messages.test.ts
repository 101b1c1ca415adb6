import assert from 'node:assert/strict'
import { encode } from '@ipld/dag-cbor'
import { decodeAsk, decodeClaims, decodeInstalments, decodeList, decodePeek, encodeAsk, encodeClaims, encodeInstalments, encodeList, encodePeek } from '../../../src/origin/messages.ts'
import type { Claim } from '../../../src/origin/claims.ts'
import { readModel } from '../../../src/origin/upstream-model.ts'

const PEER = '12D3KooWAQpWsDPbKCQK4AAtJkZ4jJZK8GFqLQNz1rXVZ9i6LkGB'
const OTHER = '12D3KooWBQpWsDPbKCQK4AAtJkZ4jJZK8GFqLQNz1rXVZ9i6LkGB'
const CID = 'bafyr4ifrppmvjkxc7ikbsa4wzpk2elc4nhor7qefkkcnc54irg75pvchmi'
const KEY = '0f'.repeat(32)
const have: Claim = { peerId: PEER, state: 'have', cid: CID, bytesDone: 0, bytesTotal: 0 }
/** Without length and type. */
const body = (frame: Uint8Array): Uint8Array => Uint8Array.from(frame.subarray(5))

describe('origin: messages', () => {
  it('say what they were told to', () => {
    assert.deepEqual(decodeAsk(body(encodeAsk({ key: KEY, claim: have })), PEER), { key: KEY, claim: have })
    assert.deepEqual(decodeAsk(body(encodeAsk({ key: KEY, claim: undefined })), PEER), { key: KEY, claim: undefined })
    assert.deepEqual(decodeClaims(body(encodeClaims([have, { ...have, peerId: OTHER, state: 'fetching', cid: undefined }]))), [have, { ...have, peerId: OTHER, state: 'fetching', cid: undefined }])
    assert.deepEqual(decodePeek(body(encodePeek({ key: KEY, path: 'a/b', offset: 7, length: 9 }))), { key: KEY, path: 'a/b', offset: 7, length: 9 })
    assert.equal(decodeList(body(encodeList(KEY))), KEY)
    assert.deepEqual(decodeInstalments(body(encodeInstalments([CID, CID]))), [CID, CID])
    assert.equal(decodeInstalments(body(encodeInstalments(Array.from({ length: 100 }, () => CID)))).length, 64)
  })

  const wire = { peerId: PEER, state: 'have', cid: CID, bytesDone: 0, bytesTotal: 0 }
  const wrong: Array<[string, unknown]> = [
    ['a claim in another\'s name', { key: KEY, claim: { ...wire, peerId: OTHER } }], ['a key that is none', { key: 'x', claim: null }], ['a key too many', { key: KEY, claim: null, more: 1 }],
    ['no claim', { key: KEY }], ['a list', [1]], ['an unknown state', { key: KEY, claim: { ...wire, state: 'had' } }], ['no peer', { key: KEY, claim: { ...wire, peerId: 'me' } }],
    ['a model that is none', { key: KEY, claim: { ...wire, cid: 'bafy' } }], ['a model of who has none', { key: KEY, claim: { ...wire, state: 'want' } }], ['having none', { key: KEY, claim: { ...wire, cid: null } }],
    ['less than nothing', { key: KEY, claim: { ...wire, bytesDone: -1 } }]
  ]
  for (const [what, value] of wrong) {
    it(`are refused: ${what}`, () => { assert.throws(() => decodeAsk(encode(value), PEER), { name: 'ProtocolError' }) })
  }

  it('are refused: too many claims, and too much of a file', () => {
    assert.throws(() => decodeClaims(encode(Array.from({ length: 17 }, () => wire))), { name: 'ProtocolError' })
    assert.throws(() => decodePeek(encode({ key: KEY, path: 'a', offset: 0, length: 65_537 })), { name: 'ProtocolError' })
    assert.throws(() => decodePeek(encode({ key: KEY, path: 'a'.repeat(2_000), offset: 0, length: 1 })), { name: 'ProtocolError' })
  })

  for (const [what, value] of [['too many', Array.from({ length: 65 }, () => CID)], ['no list', { 0: CID }], ['no CID', ['bafy']], ['a number', [7]]] as const) {
    it(`are refused: instalments that are ${what}`, () => { assert.throws(() => decodeInstalments(encode(value)), { name: 'ProtocolError' }) })
  }

  it('are refused: a question for what has no key', () => {
    assert.throws(() => decodeList(encode({ key: 'x' })), { name: 'ProtocolError' })
    assert.throws(() => decodeList(encode({ key: KEY, more: 1 })), { name: 'ProtocolError' })
  })
})

describe('origin: what an upstream says', () => {
  const sha = '1'.repeat(40)
  const file = { rfilename: 'a.bin', size: 3, blobId: '2'.repeat(40), lfs: { sha256: '3'.repeat(64), size: 3, pointerSize: 130 } }

  it('is read', () => {
    assert.deepEqual(readModel('a/b', { sha, gated: 'auto', siblings: [{ ...file, rfilename: 'z' }, { rfilename: 'b', size: 0, blobId: sha, lfs: null }] }), {
      repo: 'a/b', commit: sha, restricted: true, files: [{ path: 'b', size: 0, oid: sha, sha256: undefined }, { path: 'z', size: 3, oid: '2'.repeat(40), sha256: '3'.repeat(64) }], foreign: []
    })
    assert.equal(readModel('a/b', { sha, gated: false, private: true, siblings: [] }).restricted, true)
    assert.deepEqual(['A/b', 'a/b', '../b', 7].map(id => readModel('a/b', { sha, id, siblings: [] }).id), ['A/b', undefined, undefined, undefined])
    assert.equal(readModel('a/b', { sha, gated: false, private: false, siblings: [] }).restricted, false)
  })

  const nonsense: Array<[string, unknown]> = [
    ['nothing', null], ['a list', []], ['no commit', { siblings: [] }], ['a short commit', { sha: '12', siblings: [] }], ['no files', { sha }], ['a file without a name', { sha, siblings: [{}] }],
    ['no size', { sha, siblings: [{ ...file, size: undefined }] }], ['a size below zero', { sha, siblings: [{ ...file, size: -1 }] }], ['no blob', { sha, siblings: [{ ...file, blobId: 'x' }] }],
    ['another size in LFS', { sha, siblings: [{ ...file, size: 4 }] }], ['no hash in LFS', { sha, siblings: [{ ...file, lfs: { size: 3 } }] }]
  ]
  for (const [what, answer] of nonsense) it(`is refused: ${what}`, () => { assert.throws(() => readModel('a/b', answer), { name: 'UpstreamError' }) })

  it('is read: files that no model can hold are apart', () => {
    const named = (...names: string[]): ReturnType<typeof readModel> => readModel('a/b', { sha, siblings: names.map(rfilename => ({ ...file, rfilename })) })
    const { files, foreign } = named('z.bin', '模型/图 (1).png', 'ä.bin', 'a.bin')
    assert.deepEqual([files.map(({ path }) => path), foreign?.map(({ path }) => path)], [['a.bin', 'z.bin'], ['ä.bin', '模型/图 (1).png']])
    assert.throws(() => named('ä', 'b', 'ä'), { name: 'UpstreamError' })
    // Nothing is left for a model.
    assert.throws(() => named('ä.bin'), { name: 'InvalidPathError' })
  })

  it('is read: of names that differ only in the case of letters the second is apart, whatever the order', () => {
    const names = ['LICENSE', 'license', 'Data', 'data/a.bin', 'DOCS/a', 'docs', 'Sub/a', 'sub/b', 'می\u200cخواهم.txt', '👩\u200d🔬.png', 'a.bin']
    for (const order of [names, names.toReversed()]) {
      const { files, foreign } = readModel('a/b', { sha, siblings: order.map(rfilename => ({ ...file, rfilename })) })
      assert.deepEqual(files.map(({ path }) => path), ['DOCS/a', 'Data', 'LICENSE', 'Sub/a', 'a.bin', 'sub/b'])
      assert.deepEqual(foreign?.map(({ path }) => path), ['data/a.bin', 'docs', 'license', 'می\u200cخواهم.txt', '👩\u200d🔬.png'])
    }
    for (const names of [['a', 'a'], ['a', 'a/b'], ['A', 'a', 'a']]) {
      assert.throws(() => readModel('a/b', { sha, siblings: names.map(rfilename => ({ ...file, rfilename })) }), { name: /^(InvalidPathError|UpstreamError)$/ }, names.join(' '))
    }
  })

  for (const path of ['ä/../x', 'ä//b', '/ä', 'ä\\b', 'ä\n', 'ä\u2028', 'ä\u202eb', 'C:ä', `ä${'b'.repeat(1_100)}`, `ä${'/b'.repeat(40)}`]) {
    it(`is refused, beside others: ${JSON.stringify(path)}`, () => { assert.throws(() => readModel('a/b', { sha, siblings: [file, { ...file, rfilename: path }] }), { name: 'InvalidPathError' }) })
  }

  for (const path of ['../x', '/etc/passwd', 'a\\b', 'a//b', 'b\0', 'ä.bin']) {
    it(`is refused: ${JSON.stringify(path)}`, () => { assert.throws(() => readModel('a/b', { sha, siblings: [{ ...file, rfilename: path }] }), { name: 'InvalidPathError' }) })
  }
})

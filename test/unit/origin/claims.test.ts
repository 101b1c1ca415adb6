import assert from 'node:assert/strict'
import { ORIGIN_CLAIMS_KEPT_MAX, ORIGIN_CLAIMS_MAX, ORIGIN_KEYS_MAX } from '../../../src/base/index.ts'
import { CLAIM_MS, ClaimTable, RANK_DELAY_MS, decide, rankOf, yieldsTo, type Claim, type ClaimState } from '../../../src/origin/claims.ts'

const KEY = 'a'.repeat(64)
const CID = 'bafyr4ifrppmvjkxc7ikbsa4wzpk2elc4nhor7qefkkcnc54irg75pvchmi'
/** By rank, the first first. */
const PEERS = ['p', 'q', 'r', 's'].sort((a, b) => rankOf(KEY, b) - rankOf(KEY, a))
const claim = (peerId: string, state: ClaimState): Claim => ({ peerId, state, cid: state === 'have' ? CID : undefined, bytesDone: 0, bytesTotal: 10 })
const [first = '', second = '', third = '', last = ''] = PEERS

describe('origin: claims', () => {
  it('the first by rank fetches at once, the others wait for those before them', () => {
    const others = (self: string): Claim[] => PEERS.filter(peer => peer !== self).map(peer => claim(peer, 'want'))
    assert.deepEqual(decide(KEY, first, others(first), 0), { do: 'fetch' })
    for (const [rank, self] of PEERS.entries()) {
      if (rank > 0) assert.deepEqual(decide(KEY, self, others(self), rank * RANK_DELAY_MS - 1), { do: 'wait' })
      assert.deepEqual(decide(KEY, self, others(self), rank * RANK_DELAY_MS), { do: 'fetch' })
    }
    assert.deepEqual(decide(KEY, last, [], 0), { do: 'fetch' })
  })

  it('who has it comes before who fetches it, and both before whose turn it would be', () => {
    assert.deepEqual(decide(KEY, first, [claim(second, 'want'), claim(last, 'fetching')], 1e9), { do: 'follow', claim: claim(last, 'fetching') })
    assert.deepEqual(decide(KEY, first, [claim(second, 'fetching'), claim(last, 'have')], 1e9), { do: 'load', claim: claim(last, 'have') })
  })

  it('of two who fetch, the same one lets go, whoever looks', () => {
    assert.equal(yieldsTo(KEY, first, [claim(second, 'fetching'), claim(third, 'want')], 0), undefined)
    assert.deepEqual(yieldsTo(KEY, second, [claim(first, 'fetching')], 0), claim(first, 'fetching'))
    assert.deepEqual(yieldsTo(KEY, first, [claim(last, 'have')], 5), claim(last, 'have'))
    // Who waited long for its turn finds another at it.
    const begun = { ...claim(second, 'fetching'), bytesDone: 5 }
    assert.deepEqual(yieldsTo(KEY, first, [begun], 0), begun)
    assert.equal(yieldsTo(KEY, second, [claim(first, 'fetching')], 5), undefined)
    assert.equal(yieldsTo(KEY, first, [begun], 1), undefined)
  })

  it('who fetches it, and who has it, is not forgotten for others who want it', () => {
    const table = new ClaimTable()
    table.note(KEY, first, claim(first, 'fetching'), 0)
    table.note(KEY, second, claim(second, 'have'), 0)
    for (let peer = 0; peer < 2 * ORIGIN_CLAIMS_KEPT_MAX; peer++) table.note(KEY, `${peer}`, claim(`${peer}`, 'want'), 1)
    assert.deepEqual(table.of(KEY, 2, '').slice(0, 3).map(({ state }) => state), ['have', 'fetching', 'want'])
    // Full of those, it has no room for one who wants it, and for the newest of its own kind.
    for (let peer = 0; peer < 2 * ORIGIN_CLAIMS_KEPT_MAX; peer++) table.note(KEY, `${peer}`, claim(`${peer}`, 'fetching'), 3)
    table.note(KEY, third, claim(third, 'want'), 4)
    for (let peer = 0; peer < 2 * ORIGIN_CLAIMS_KEPT_MAX; peer++) table.forget(`${peer}`)
    assert.deepEqual(table.of(KEY, 4, ''), [])
  })

  it('are kept for a while, the best told first, and in bounds', () => {
    const table = new ClaimTable()
    table.note(KEY, first, claim(first, 'want'), 0)
    table.note(KEY, second, claim(second, 'fetching'), 1)
    assert.deepEqual(table.of(KEY, 2, '').map(({ peerId }) => peerId), [second, first])
    assert.deepEqual(table.of(KEY, 2, second).map(({ peerId }) => peerId), [first])
    assert.deepEqual(table.of(KEY, CLAIM_MS + 1, '').map(({ peerId }) => peerId), [second])
    table.forget(second)
    assert.deepEqual(table.of(KEY, 2, ''), [claim(first, 'want')])
    table.note(KEY, first, undefined, 3)
    assert.deepEqual(table.of(KEY, 3, ''), [])
    for (let peer = 0; peer < 10 * ORIGIN_CLAIMS_KEPT_MAX; peer++) table.note(KEY, `${peer}`, claim(`${peer}`, 'want'), 4)
    assert.equal(table.of(KEY, 4, '').length, ORIGIN_CLAIMS_MAX)
    for (let key = 0; key < ORIGIN_KEYS_MAX; key++) table.note(`${key}`, first, claim(first, 'want'), 5)
    assert.deepEqual(table.of(KEY, 5, ''), [])
  })
})

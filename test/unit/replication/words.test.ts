import assert from 'node:assert/strict'
import { Credit } from '../../../src/replication/credit.ts'
import { nameHash, weight } from '../../../src/replication/rendezvous.ts'
import { defaultReplication } from '../../../src/replication/settings.ts'
import type { ReplicaMessage } from '../../../src/replication/types.ts'
import { ReplicaBench, policyOf, proofOf } from '../../support/replica-bench.ts'

const TTL = defaultReplication.proofTtlMs
/** Of 10 MiB at the slowest rate that is worth it. */
const PULL_SECONDS = 5 * 60 + 105

/** The last copy of a shard, donors with room, and who says what it will. */
function bench (honest: string[] = []): ReplicaBench {
  const made = new ReplicaBench({ shards: 1, policies: [policyOf()] })
  made.reachable = ['donor 1', 'donor 2']
  made.answers = (to: string, message: ReplicaMessage) => {
    if (message.type === 'state' && to.startsWith('donor')) return message.wantsReply ? [made.state(to, [])] : []
    if (message.type === 'challenge' && honest.includes(to)) return [proofOf(message, to)]
    return []
  }
  for (const id of honest) made.says(id, [{ committed: made.all }])
  made.tick(0)
  return made
}

describe('what others only say', () => {
  it('is believed once in the lifetime of a proof, and again when it was shown', () => {
    const credit = new Credit(2)
    assert(credit.claims(0, 0, TTL))
    assert(!credit.claims(0, TTL - 1, TTL))
    assert(credit.claims(1, TTL - 1, TTL), 'each shard for itself')
    assert(credit.claims(0, TTL, TTL))
    credit.proven(0)
    assert(credit.claims(0, TTL, TTL))
    const later = new Credit(2, credit.spent)
    assert(!later.claims(1, TTL, TTL), 'also when all of it was taken back meanwhile')
    assert(later.claims(1, 2 * TTL, TTL))
  })

  it('does not keep a last copy alone when two crash again and again and show nothing', () => {
    const at = bench()
    at.run(60, second => {
      if (second % 8 === 0) for (const id of ['loop 1', 'loop 2']) at.says(id, [{ committed: at.all }], { incarnation: `${id} ${second}` })
    })
    assert.ok(at.offeredTo().length > 0)
  })

  it('does not keep a last copy alone when some take back what they said and say it again, in one breath or a while later', () => {
    const breathless = bench()
    breathless.run(60, () => { for (const id of ['liar 1', 'liar 2']) for (const committed of [new Uint8Array(1), breathless.all]) breathless.says(id, [{ committed }]) })
    assert.ok(breathless.offeredTo().length > 0)
    const later = bench()
    later.run(60, second => {
      for (const i of [0, 1, 2]) later.says(`liar ${i}`, second % 12 === i * 4 ? [{}] : [{ committed: later.all }])
    })
    assert.ok(later.offeredTo().length > 0, 'two of three say it at each time')
  })

  it('does not make who comes back often, and shows what it has, count for less', () => {
    const at = bench(['often', 'other'])
    at.run(60, second => { if (second % 8 === 0) at.says('often', [{ committed: at.all }], { incarnation: `often ${second}` }) })
    assert.deepEqual(at.offeredTo(), [])
    assert.deepEqual(at.holders(), ['self proven', 'often proven', 'other proven'])
  })

  it('stands for a copy that is on its way as long as a pull may take, whoever says it how often', () => {
    const at = bench(['other'])
    at.says('slow', [{ pending: at.all }])
    at.run(PULL_SECONDS - 10)
    assert.deepEqual(at.offeredTo(), [])
    at.run(20)
    assert.ok(at.offeredTo().length > 0)
  })

  it('does not stand for one for longer when two take turns in saying it', () => {
    const at = bench(['other'])
    at.run(PULL_SECONDS + 90, second => {
      if (second % 60 !== 0) return
      const ids = ['one', 'another']
      if (second % 120 === 0) ids.reverse()
      at.says(ids[0] ?? '', [{ pending: at.all }])
      at.says(ids[1] ?? '', [{}])
    })
    assert.ok(at.offeredTo().length > 0)
  })

  it('takes no place that a last copy needs', () => {
    const at = bench()
    at.run(300, second => {
      if (second % 60 === 0) for (const id of ['a', 'b', 'c', 'd']) at.says(id, [{ pending: at.all }])
    })
    assert.ok(at.offeredTo().length > 0)
  })

  it('lets the holders take turns when it is not believed any more', () => {
    const rank = (id: string): number => weight(nameHash('m'), 0, nameHash(id))
    const first = Array.from({ length: 20 }, (_, i) => `other ${i}`).find(id => rank(id) > rank('self'))
    assert(first !== undefined)
    const at = bench([first])
    at.says('slow', [{ pending: at.all }])
    at.run(PULL_SECONDS + 20)
    assert.deepEqual(at.offeredTo(), [], 'the first in rank has its time')
    at.run(60)
    assert.ok(at.offeredTo().length > 0)
  })
})

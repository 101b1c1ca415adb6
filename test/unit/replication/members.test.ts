import assert from 'node:assert/strict'
import { ReplicaBench, policyOf, proofOf } from '../../support/replica-bench.ts'

const gone = Array.from({ length: 256 }, (_, i) => `gone ${i}`)

/** The last copy of a shard, donors with room, and holders that answer. */
function bench (holders: string[] = []): ReplicaBench {
  const made = new ReplicaBench({ shards: 1, policies: [policyOf()] })
  for (const id of gone) made.silent.add(id)
  made.reachable = ['donor 1', 'donor 2']
  made.answers = (to, message) => {
    if (message.type === 'state' && holders.includes(to)) return [made.state(to, [{ committed: made.all }], { ackIncarnation: message.incarnation, ackVersion: message.version })]
    if (message.type === 'state' && to.startsWith('donor')) return message.wantsReply ? [made.state(to, [])] : []
    if (message.type === 'challenge') return [proofOf(message, to)]
    if (message.type === 'offer') return [{ type: 'decline', id: message.id, model: message.model, shard: message.shard, reason: holders.includes(to) ? 'held' : 'busy' }]
    return []
  }
  return made
}

describe('those who are said to have to do with a model', () => {
  it('make room for others when they do not answer, however many they are', () => {
    const at = bench(['holder'])
    at.replicator.found('m', gone, at.now)
    at.run(10)
    at.replicator.found('m', ['holder'], at.now)
    at.run(2)
    assert.deepEqual(at.holders(), ['self proven', 'holder proven'])
  })

  it('are forgotten when they are silent, and come back by their own word, not by that of others', () => {
    const at = bench()
    at.replicator.found('m', gone.slice(0, 5), at.now)
    at.tick()
    assert.equal(at.watched.size, 5)
    at.run(20 * 60)
    assert.equal(at.watched.size, 0)
    at.replicator.found('m', gone.slice(0, 5), at.now)
    at.says('gossip', [{ cached: at.all, members: gone.slice(0, 5) }])
    at.tick()
    assert.deepEqual([...at.watched], ['gossip'])
    at.silent.delete('gone 0')
    at.replicator.found('m', gone.slice(0, 5), at.now)
    at.tick()
    assert.deepEqual([...at.watched].sort(), ['gone 0', 'gossip'])
    at.run(60 * 60)
    at.replicator.found('m', ['gone 1'], at.now)
    at.tick()
    assert(at.watched.has('gone 1'), 'after an hour somebody may know better')
  })

  it('hold up a repair for ten seconds in all, also when new ones are named again and again', () => {
    const at = bench()
    at.run(20, second => { at.says('gossip', [{ cached: new Uint8Array(1), members: [`ghost ${second}`] }]) })
    assert.ok(at.offeredTo().length > 0)
  })

  it('are asked when they decline an offer because they have it', () => {
    const at = bench(['donor 1', 'donor 2'])
    at.answers = (answers => (to, message) => message.type === 'state' && message.models.length === 0 ? [at.state(to, [])] : answers(to, message))(at.answers)
    at.run(20)
    assert.deepEqual(at.holders().sort(), ['donor 1 proven', 'donor 2 proven', 'self proven'])
  })

  it('may have wanted what is here, for all that is known after a loss of the ledger', () => {
    const at = new ReplicaBench({ shards: 1, kept: false, ledgerLostMs: 0 })
    at.silent.add('publisher')
    at.answers = (to, message) => message.type === 'challenge' ? [proofOf(message, to)] : []
    at.replicator.found('m', ['publisher'], at.now)
    at.says('holder', [{ committed: at.all }])
    at.run(20 * 60)
    assert.equal(at.watched.size, 1)
    assert.equal(at.replicator.rebuilding, 1)
  })
})

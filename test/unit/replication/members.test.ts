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
})

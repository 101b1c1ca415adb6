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
  it('are asked a few at a time, however many models they are named for, and others have their share', () => {
    const models = Array.from({ length: 40 }, (_, i) => `m${i}`)
    const at = new ReplicaBench({ shards: 1, models, policies: models.map(model => policyOf({ model })) })
    const asked = new Set<string>()
    at.answers = (to, message) => {
      if (message.type === 'state') asked.add(to)
      return message.type === 'state' && to.startsWith('real') ? [at.state(to, [{ model: 'm0', committed: at.all }])] : []
    }
    for (let i = 0; i < 10_240; i++) at.silent.add(`fake ${i}`)
    at.says('liar', models.map((model, i) => ({ model, cached: at.all, members: Array.from({ length: 256 }, (_, member) => `fake ${i * 256 + member}`) })))
    // Not heard before they are asked.
    for (const id of ['real 1', 'real 2']) at.silent.add(id)
    at.says('honest', [{ model: 'm0', cached: at.all, members: ['real 1', 'real 2'] }])
    at.run(1)
    assert.ok(at.watched.size < 50, String(at.watched.size))
    for (const id of ['real 1', 'real 2']) { assert.ok(at.watched.has(id)); at.silent.delete(id) }
    at.run(600, () => { assert.ok(at.watched.size < 50, String(at.watched.size)) })
    assert.deepEqual(at.holders(0, 'm0').filter(holder => holder.startsWith('real')).length, 2)
    assert.equal(at.replicator.brake, false)
  })

  it('do not put off for ever what a last copy needs, whoever names new ones all the time', () => {
    const at = bench()
    let names = 0
    let firstAt: number | undefined
    at.run(60, second => {
      const members = Array.from({ length: 64 }, () => `fake ${names++}`)
      for (const id of members) at.silent.add(id)
      if (second % 4 === 0) at.says('liar', [{ cached: at.all, members }])
      if (at.offeredTo().length > 0) firstAt ??= second
    })
    assert.ok((firstAt ?? Infinity) <= 35, String(firstAt))
  })

  it('pull no brake when they were gone before this node heard of them', () => {
    const at = bench(['holder'])
    at.says('holder', [{ committed: at.all, members: gone.slice(0, 20) }])
    at.run(300, () => { assert.equal(at.replicator.brake, false) })
  })

  it('are named to others when they are up or went lately, and where there are many the first before the last', () => {
    const at = bench()
    const dead = Array.from({ length: 70 }, (_, i) => `dead ${i}`)
    const late = Array.from({ length: 70 }, (_, i) => `late ${i}`)
    const holders = [...dead, ...late, 'live 1', 'live 2']
    const answers = at.answers
    let told: string[] = []
    at.answers = (to, message) => {
      if (message.type === 'state' && to.startsWith('newcomer')) told = message.models[0]?.members ?? []
      return message.type === 'state' && holders.includes(to) ? [at.state(to, [{ committed: at.all }], { ackIncarnation: message.incarnation, ackVersion: message.version })] : answers(to, message)
    }
    for (const id of holders) at.says(id, [{ committed: at.all }])
    at.tick()
    for (const id of dead) at.silent.add(id)
    at.run(3_600)
    for (const id of late) at.silent.add(id)
    at.run(60)
    at.says('newcomer', [{ cached: at.all }], { wantsReply: true })
    at.tick()
    assert.deepEqual([told.length, ...told.slice(0, 3)], [64, 'live 1', 'live 2', 'late 0'])
    at.run(3_600)
    at.says('newcomer 2', [{ cached: at.all }], { wantsReply: true })
    at.tick()
    assert.deepEqual(told.filter(id => !id.startsWith('newcomer')), ['live 1', 'live 2'])
  })
})

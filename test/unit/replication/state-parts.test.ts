import assert from 'node:assert/strict'
import type { ReplicaMessage } from '../../../src/replication/types.ts'
import { ReplicaBench, policyOf } from '../../support/replica-bench.ts'

type State = Extract<ReplicaMessage, { type: 'state' }>

const models = Array.from({ length: 100 }, (_, i) => `m${i}`)

/** What a node that shares a hundred models with another says to it. */
function bench (): { at: ReplicaBench, said: State[], hears: (part?: State['part'], over?: Partial<State>) => void } {
  const at = new ReplicaBench({ shards: 1, models, policies: models.map(model => policyOf({ model })) })
  const said: State[] = []
  at.answers = (_to, message) => {
    if (message.type === 'state') said.push(message)
    return []
  }
  const hears = (part?: State['part'], over: Partial<State> = {}): void => { at.says('other', models.filter((_, i) => part === undefined || i % part.of === part.number).map(model => ({ model, committed: at.all })), { version: 7, part, ...over }) }
  return { at, said, hears }
}

describe('a state in parts', () => {
  it('names each model in one part, always the same, and is said again until it is acknowledged', () => {
    const { at, said, hears } = bench()
    hears()
    at.tick()
    const of = said.at(-1)?.part?.of ?? 1
    assert.ok(of > 1)
    const first = said.splice(0)
    assert.deepEqual(new Set(first.map(({ part }) => part?.number)), new Set(Array.from({ length: of }, (_, number) => number)))
    assert.equal(first.length, of)
    assert.deepEqual(first.flatMap(each => each.models.map(({ model }) => model)).sort(), [...models].sort())
    assert.equal(first.filter(({ wantsReply }) => wantsReply).length, 1)
    at.run(30)
    assert.ok(said.length >= of, 'again')
    const partOf = (states: State[], model: string): number | undefined => states.find(each => each.models.some(claim => claim.model === model))?.part?.number
    for (const model of models) assert.equal(partOf(said, model), partOf(first, model))
    const [{ incarnation, version }] = said as [State]
    hears(undefined, { version: 8, ackIncarnation: incarnation, ackVersion: version })
    said.length = 0
    at.run(100)
    assert.deepEqual(said, [])
  })

  it('is acknowledged when all of one version came, in whatever order and how often', () => {
    const { at, said, hears } = bench()
    const acknowledged = (): number | undefined => {
      at.run(100)
      return said.at(-1)?.ackVersion
    }
    hears({ number: 0, of: 2 })
    hears({ number: 0, of: 2 })
    assert.equal(acknowledged(), 0)
    hears({ number: 1, of: 4 })
    assert.equal(acknowledged(), 0, 'it was cut otherwise meanwhile')
    hears({ number: 1, of: 2 })
    hears({ number: 0, of: 2 })
    assert.equal(acknowledged(), 7)
    hears({ number: 1, of: 2 }, { version: 8 })
    assert.equal(acknowledged(), 7)
    hears({ number: 0, of: 2 }, { version: 8 })
    assert.equal(acknowledged(), 8)
    hears({ number: 0, of: 2 }, { incarnation: 'other again', version: 8 })
    assert.equal(acknowledged(), 0, 'of the last life')
    hears({ number: 1, of: 2 }, { incarnation: 'other again', version: 8 })
    assert.equal(acknowledged(), 8)
  })
})

import assert from 'node:assert/strict'
import { Trouble } from '../../../src/replication/trouble.ts'
import type { DrainStatus, ModelReplication } from '../../../src/replication/types.ts'

const MINUTE = 60_000
const model = (replicasMin: number): ModelReplication => ({
  model: 'm', min: 2, target: 3, max: 5, replicasMin, shards: 4, deficitShards: 4, deficitBytes: 1, repairing: 0, oldestProofAgoMs: undefined, secondsLeft: undefined
})
const state = (replicasMin: number, more: Partial<Parameters<Trouble['problems']>[0]> = {}): Parameters<Trouble['problems']>[0] =>
  ({ models: [model(replicasMin)], brake: false, connected: true, reachable: 3, ...more })

describe('what replication cannot mend by itself', () => {
  it('is told when it has lasted, with the reason', () => {
    const trouble = new Trouble()
    trouble.look([model(1)], undefined, 0)
    assert.deepEqual(trouble.problems(state(1), MINUTE), [])
    trouble.note({ type: 'declined', model: 'm', shard: 0, by: 'p', reason: 'space' }, MINUTE)
    trouble.look([model(1)], undefined, 2 * MINUTE)
    assert.match(trouble.problems(state(1), 2 * MINUTE)[0] ?? '', /1 of at least 2 replicas: nobody gives space/)
    assert.deepEqual(trouble.problems(state(1, { connected: false }), 2 * MINUTE), [])
    trouble.look([model(1)], undefined, 10 * MINUTE)
    assert.match(trouble.problems(state(1, { reachable: 0 }), 10 * MINUTE)[0] ?? '', /only 0 other nodes/)
    trouble.look([model(2)], undefined, 11 * MINUTE)
    trouble.look([model(1)], undefined, 12 * MINUTE)
    assert.deepEqual(trouble.problems(state(1), 13 * MINUTE), [])
  })

  it('is told by a node that is alone where others had replicas, and not by one that never had others', () => {
    const alone = { connected: false, reachable: 0 }
    const first = new Trouble()
    for (let minute = 0; minute <= 10; minute++) first.look([model(1)], undefined, minute * MINUTE)
    assert.deepEqual(first.problems(state(1, alone), 10 * MINUTE), [])
    first.look([model(0)], undefined, 11 * MINUTE)
    assert.deepEqual(first.problems(state(0, alone), 11 * MINUTE), [], 'it drains')
    const left = new Trouble()
    left.look([model(3)], undefined, 0)
    for (let minute = 1; minute <= 10; minute++) left.look([model(1)], undefined, minute * MINUTE)
    assert.match(left.problems(state(1, alone), 10 * MINUTE).join(), /^m has 1 of at least 2 replicas: only 0 other nodes are connected; see shoal show m$/)
    left.look([], undefined, 11 * MINUTE)
    for (let minute = 12; minute <= 20; minute++) left.look([model(1)], undefined, minute * MINUTE)
    assert.deepEqual(left.problems(state(1, alone), 20 * MINUTE), [], 'what was removed is forgotten')
  })

  it('is told where a model stays below its target, when nothing of it has been on its way for long', () => {
    const trouble = new Trouble()
    const coming = { ...model(2), repairing: 1 }
    for (let minute = 0; minute <= 20; minute++) trouble.look([coming], undefined, minute * MINUTE)
    assert.deepEqual(trouble.problems({ ...state(2), models: [coming] }, 20 * MINUTE), [])
    for (let minute = 21; minute <= 40; minute++) {
      trouble.note({ type: 'declined', model: 'm', shard: 0, by: 'p', reason: 'space' }, minute * MINUTE)
      trouble.look([model(2)], undefined, minute * MINUTE)
      assert.equal(trouble.problems(state(2), minute * MINUTE).length, minute < 36 ? 0 : 1, `minute ${minute}`)
    }
    assert.match(trouble.problems(state(2), 40 * MINUTE)[0] ?? '', /^m has 2 of the 3 replicas that it is to have: nobody gives space; .*; ask for fewer with shoal pin m --replicas 2 /)
    trouble.look([model(3)], undefined, 41 * MINUTE)
    assert.deepEqual(trouble.problems(state(3), 41 * MINUTE), [])
    const single = new Trouble()
    for (let minute = 0; minute <= 60; minute++) single.look([{ ...model(1), min: 1 }], undefined, minute * MINUTE)
    assert.deepEqual(single.problems({ ...state(1, { connected: false, reachable: 0 }), models: [{ ...model(1), min: 1 }] }, 60 * MINUTE), [], 'a first node that never had others')
  })

  it('is the brake, and a drain that does not get on', () => {
    const trouble = new Trouble()
    assert.equal(trouble.problems(state(3, { brake: true }), 0).length, 1)
    const drain = (left: number, waits = false): DrainStatus & { waits: boolean } => ({ waits, left: Array.from({ length: left }, (_, shard) => ({ model: 'm', shard, replicas: 1, target: 3 })), bytesLeft: left })
    trouble.look([], drain(5), 0)
    trouble.look([], drain(4), 2 * MINUTE)
    assert.deepEqual(trouble.problems(state(3), 3 * MINUTE), [])
    trouble.look([], drain(4), 4 * MINUTE)
    assert.match(trouble.problems(state(3), 4 * MINUTE)[0] ?? '', /4 shards have too few replicas elsewhere; start more/)
    trouble.look([], drain(4, true), 4 * MINUTE)
    assert.match(trouble.problems(state(3), 4 * MINUTE)[0] ?? '', /away are waited for/)
    trouble.look([], drain(0), 5 * MINUTE)
    assert.deepEqual(trouble.problems(state(3), 9 * MINUTE), [])
  })
})

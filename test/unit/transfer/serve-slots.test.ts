import assert from 'node:assert/strict'
import { randomInt, seededRandom } from '../../../src/base/index.ts'
import { SlotPool, type Slot } from '../../../src/storage/slots.ts'
import { ServeSlots, type PeerSlots } from '../../../src/transfer/serve-slots.ts'
import { seedOf } from '../../compliance/store-fixtures.ts'

const seed = seedOf()

interface User { peer: PeerSlots, slot?: Slot | undefined, giveUp?: (() => void) | undefined }

describe(`slots of serving (seed ${seed})`, () => {
  it('leave nobody waiting for a slot that is free, whatever comes and goes', () => {
    const random = seededRandom(seed)
    const slots = new ServeSlots(new SlotPool(3))
    const peers = Array.from({ length: 5 }, () => slots.peer())
    const users: User[] = peers.flatMap(peer => Array.from({ length: 3 }, () => ({ peer })))
    const begin = (user: User): void => {
      user.giveUp = user.peer.acquire(slot => { user.slot = slot })
      user.peer.want(true)
    }
    const end = (user: User): void => {
      if (user.slot === undefined) user.giveUp?.()
      else user.peer.release(user.slot)
      user.slot = user.giveUp = undefined
      user.peer.want(false)
    }
    for (let step = 0; step < 5_000; step++) {
      const user = users[randomInt(random, users.length)] as User
      if (user.giveUp === undefined) begin(user)
      else end(user)
      const held = users.filter(({ slot }) => slot !== undefined).length
      const waiting = users.filter(({ slot, giveUp }) => slot === undefined && giveUp !== undefined).length
      assert.equal(held + slots.free, 3)
      assert(waiting === 0 || slots.free === 0, `step ${step}: ${waiting} wait, ${slots.free} are free`)
      for (const peer of peers) assert.equal(peer.held, users.filter(other => other.peer === peer && other.slot !== undefined).length)
    }
    for (const user of users) if (user.giveUp !== undefined) end(user)
    assert.equal(slots.free, 3)
  })

  it('keep a slot for who goes from one block to the next, and are not all taken by who has more streams', () => {
    const slots = new ServeSlots(new SlotPool(4))
    const [greedy, other] = [slots.peer(), slots.peer()]
    const held: Slot[] = []
    for (let i = 0; i < 8; i++) {
      greedy.want(true)
      greedy.acquire(slot => { held.push(slot) })
    }
    assert.equal(held.length, 4)
    let own: Slot | undefined
    const take = (slot: Slot): void => { own = slot }
    other.want(true)
    other.acquire(take)
    assert.equal(slots.next, other)
    greedy.release(held.pop() as Slot)
    for (let i = 0; i < 10; i++) {
      assert(own !== undefined)
      const slot: Slot = own
      own = undefined
      other.release(slot)
      other.acquire(take)
    }
    assert.equal(held.length, 3)
    assert(own !== undefined)
    other.release(own)
    other.want(false)
    assert.equal(held.length, 4)
  })
})

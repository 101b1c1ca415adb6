import assert from 'node:assert/strict'
import { PeerTable } from '../../../src/replication/peer-table.ts'
import { defaultReplication } from '../../../src/replication/settings.ts'

const settings = { ...defaultReplication, donateBytes: 0 }

/** Peers whose last sign of life the test sets. */
class Setting {
  now = 1_000_000
  readonly heard = new Map<string, number>()
  readonly asked: Array<[string, string]> = []
  readonly brakes: boolean[] = []
  readonly table = new PeerTable(settings, {
    heardAt: id => this.heard.get(id),
    ask: (observer, about) => { this.asked.push([observer, about]) },
    changed: () => undefined,
    brake: on => { this.brakes.push(on) }
  })

  constructor (ids: string[]) {
    for (const id of ids) {
      this.table.track(id, this.now).stateAt = this.now
      this.heard.set(id, this.now)
    }
  }

  /** Lets time pass, a second at a time, hearing all but the silent. `answer`: what observers say of a silent peer, ms. */
  pass (ms: number, silent: string[], answer?: (about: string) => number): void {
    const end = this.now + ms
    while (this.now < end) {
      this.now += 1_000
      for (const id of this.heard.keys()) if (!silent.includes(id)) this.heard.set(id, this.now)
      this.table.poll(this.now)
      for (const [observer, about] of this.asked.splice(0)) if (answer !== undefined && !silent.includes(observer)) this.table.seen(observer, about, answer(about), this.now)
    }
  }

  of (id: string): string | undefined { return this.table.get(id)?.liveness }
}

describe('peer table', () => {
  it('suspects after 15 s of silence and calls down after 20 s when another agrees', () => {
    const at = new Setting(['a', 'b', 'c'])
    at.pass(14_000, ['a'])
    assert.equal(at.of('a'), 'alive')
    at.pass(2_000, ['a'], () => 16_000)
    assert.equal(at.of('a'), 'suspect')
    at.pass(5_000, ['a'], () => 20_000)
    assert.equal(at.of('a'), 'down')
    at.pass(1_000, [])
    assert.equal(at.of('a'), 'alive')
  })

  it('does not call down whom another hears', () => {
    const at = new Setting(['a', 'b'])
    at.pass(120_000, ['a'], () => 1_000)
    assert.equal(at.of('a'), 'suspect')
  })

  it('believes who was asked, once, and remembers no one else', () => {
    const at = new Setting(['a', 'b'])
    for (let second = 0; second < 40; second++) {
      at.pass(1_000, ['a'])
      for (let i = 0; i < 100; i++) at.table.seen(`made up ${second} ${i}`, 'a', 0, at.now)
    }
    assert.equal(at.of('a'), 'down')
    assert.ok((at.table.get('a')?.said.size ?? 0) <= 1)
    assert.ok((at.table.get('a')?.asked.size ?? 0) <= 3)
  })

  it('hears from others that one is back which it still cannot hear, and asks ever more rarely', () => {
    const at = new Setting(['a', 'b'])
    at.pass(60_000, ['a'], () => 60_000)
    assert.equal(at.of('a'), 'down')
    at.pass(40_000, ['a'], () => 1_000)
    assert.equal(at.of('a'), 'suspect')
    at.pass(40_000, ['a'], () => 60_000)
    assert.equal(at.of('a'), 'down', 'as soon as they do not hear it any more')
    let asked = 0
    const count = (ms: number): number => {
      asked = 0
      at.pass(ms, ['a'], () => { asked++; return 1e9 })
      return asked
    }
    assert.equal(count(5 * 60_000), 10)
    count(24 * 60 * 60_000)
    assert.ok(count(60 * 60_000) <= 1)
  })

  it('does not take for a return what others heard before the end', () => {
    const at = new Setting(['a', 'b'])
    const end = at.now
    at.pass(10 * 60_000, ['a'], () => at.now - end)
    assert.equal(at.of('a'), 'down')
  })

  it('remembers a goodbye when something of that life comes late', () => {
    const at = new Setting(['a', 'b'])
    const peer = at.table.get('a')
    assert(peer !== undefined)
    peer.leaving = true
    at.pass(30_000, ['a'], () => 30_000)
    assert.equal(at.of('a'), 'down')
    at.pass(1_000, [])
    assert.deepEqual([at.of('a'), peer.leaving], ['alive', true])
  })

  it('goes by its own word when nobody else knows the peer, a little later', () => {
    const at = new Setting(['a', 'b'])
    at.pass(25_000, ['a'])
    assert.equal(at.of('a'), 'suspect')
    at.pass(6_000, ['a'])
    assert.equal(at.of('a'), 'down')
    const alone = new Setting(['a'])
    alone.pass(21_000, ['a'])
    assert.equal(alone.of('a'), 'down')
  })

  it('pulls the brake when more than a quarter go at once, and lets go when they are back', () => {
    const ids = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']
    const at = new Setting(ids)
    at.pass(40_000, ['a', 'b'], () => 30_000)
    assert.equal(at.table.brake, false, 'two of eight are a quarter, not more')
    at.pass(40_000, ['a', 'b', 'c'], () => 30_000)
    assert.equal(at.table.brake, true)
    at.pass(10_000, ['a', 'b'], () => 30_000)
    at.pass(10_000, [])
    assert.equal(at.table.brake, false)
    assert.deepEqual(at.brakes, [true, false])
  })

  it('pulls it for a whole domain, and believes the loss in the end', () => {
    const at = new Setting(['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j'])
    for (const [i, peer] of [...at.table.peers.values()].entries()) peer.labels = { zone: `z${i >> 1}` }
    at.pass(30_000, ['a', 'c'], () => 30_000)
    assert.equal(at.table.brake, false)
    const whole = new Setting(['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j'])
    for (const [i, peer] of [...whole.table.peers.values()].entries()) peer.labels = { zone: `z${i >> 1}` }
    whole.pass(30_000, ['a', 'b'], () => 30_000)
    assert.equal(whole.table.brake, true)
    whole.pass(settings.brakeMaxMs + 10_000, ['a', 'b'], () => 30_000)
    assert.equal(whole.table.brake, false)
    whole.pass(60_000, ['a', 'b'], () => 30_000)
    assert.equal(whole.table.brake, false, 'what is believed does not pull it again')
  })

  it('counts no orderly stop towards the brake', () => {
    const at = new Setting(['a', 'b', 'c', 'd', 'e', 'f'])
    for (const id of ['a', 'b', 'c', 'd']) { const peer = at.table.get(id); assert(peer !== undefined); peer.leaving = true }
    at.pass(60_000, ['a', 'b', 'c', 'd'], () => 30_000)
    assert.equal(at.table.brake, false)
  })
  it('counts no names towards the brake, neither as lost nor as there', () => {
    const names = Array.from({ length: 20 }, (_, i) => `name ${i}`)
    const at = new Setting(['a', 'b', 'c', 'd', 'e', 'f'])
    for (const id of names) at.table.track(id, at.now)
    at.pass(60_000, [], () => 60_000)
    assert.equal(at.of('name 0'), 'down')
    assert.equal(at.table.brake, false)
    const besideThem = new Setting(['a', 'b', 'c', 'd', 'e', 'f'])
    besideThem.pass(10_000, [])
    for (const id of names) besideThem.table.track(id, besideThem.now)
    besideThem.pass(30_000, ['a', 'b', 'c'], about => about.startsWith('name') ? 1_000 : 30_000)
    assert.equal(besideThem.of('name 0'), 'suspect')
    assert.equal(besideThem.table.brake, true)
  })
})

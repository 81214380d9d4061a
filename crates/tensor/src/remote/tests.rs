//! The checks of the queue, on commands that the safe interface cannot give.

use std::sync::Arc;

use super::queue::{Command, Operand, Queue};
use crate::{Class, DType, Device, Layout, Meta, Op, Shape};

fn queue() -> Queue {
    Queue::new(Device::reference())
}

fn operand(queue: &Queue, n: usize) -> Operand {
    let (block, owner) = queue.alloc(DType::F32, 4 * n, Class::Activations).unwrap();
    let layout = Layout::contiguous(Shape::new(&[n]).unwrap());
    Operand { block, owner, size: 4 * n, meta: Meta { dtype: DType::F32, layout }, stored: DType::F32 }
}

fn ones(queue: &Queue, to: &Operand) {
    let bytes = [1.0f32, 1.0].map(f32::to_ne_bytes).concat();
    queue.push(Command::Upload { bytes, to: to.clone() });
}

fn copy(queue: &Queue, from: &Operand, to: &Operand) {
    queue.push(Command::Run { op: Op::Copy, ins: vec![from.clone()], outs: vec![to.clone()] });
}

/// What the next wait says.
fn told(queue: &Queue) -> String {
    let error = queue.wait(u64::MAX).expect_err("a hazard");
    queue.wait(u64::MAX).expect("an error is told once");
    error.to_string()
}

#[test]
fn memory_is_not_used_after_it_was_freed() {
    let queue = queue();
    let (a, b) = (operand(&queue, 2), operand(&queue, 2));
    ones(&queue, &a);
    queue.push(Command::Free { block: a.block.clone(), owner: a.owner });
    copy(&queue, &a, &b);
    assert!(told(&queue).starts_with("copy: uses memory of allocation 1 after it was freed"));
    queue.push(Command::Free { block: a.block.clone(), owner: a.owner });
    assert!(told(&queue).contains("freed twice"));
}

#[test]
fn memory_given_out_again_is_its_new_owners_alone() {
    let queue = queue();
    let a = operand(&queue, 2);
    ones(&queue, &a);
    queue.push(Command::Free { block: a.block.clone(), owner: a.owner });
    let b = operand(&queue, 2);
    assert!(Arc::ptr_eq(&a.block, &b.block), "reused while its last use is queued");
    let to = operand(&queue, 2);
    copy(&queue, &a, &to);
    assert!(told(&queue).contains("after it was freed"));
    copy(&queue, &b, &to);
    let text = told(&queue);
    assert!(text.contains("never written"), "the old values are gone: {text}");
}

#[test]
fn an_operator_does_not_write_what_it_reads_or_twice() {
    let queue = queue();
    let a = operand(&queue, 2);
    ones(&queue, &a);
    copy(&queue, &a, &a);
    assert!(told(&queue).contains("also uses otherwise"));
    let op = Op::Copy;
    queue.push(Command::Run { op, ins: vec![], outs: vec![a.clone(), a.clone()] });
    assert!(told(&queue).contains("also uses otherwise"));
}

#[test]
fn a_view_outside_its_memory_is_told() {
    let queue = queue();
    let (a, b) = (operand(&queue, 2), operand(&queue, 2));
    ones(&queue, &a);
    let mut far = a.clone();
    far.meta.layout.offset = 1;
    copy(&queue, &far, &b);
    assert!(told(&queue).contains("outside its 8 bytes"));
}

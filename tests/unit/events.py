"""What Bedrock could send and what nobody should, as strategies: any JSON, shaped like a sample or not."""

from hypothesis import strategies as st

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None, exclude_categories=()), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
contents = (
    json_values | st.just("72") | st.lists(st.fixed_dictionaries({"text": st.text(max_size=9)}), max_size=3)
)
items = json_values | st.fixed_dictionaries(
    {},
    optional={
        "id": st.text(max_size=5) | json_values,
        "task_id": json_values,
        "messages": json_values
        | st.lists(
            st.fixed_dictionaries(
                {
                    "role": st.sampled_from(["user", "assistant", "nova_assistant"]) | json_values,
                    "content": contents,
                }
            ),
            max_size=3,
        ),
        "reference_answer": json_values,
        "metadata": json_values | st.fixed_dictionaries({"reference_answer": json_values}),
    },
)
